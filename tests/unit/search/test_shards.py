"""Rows, samples and shard files, without a cluster."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts import folder as folder_module
from retrieval.artifacts.collection import CATALOG_SCHEMA
from retrieval.artifacts.embeddings import EMBEDDING_SCHEMA
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.hashing import hash_file
from retrieval.artifacts.index import IDS, TRAINED, factory_of
from retrieval.artifacts.manifest import MANIFEST, STARTED, Manifest, read_manifest, seal
from retrieval.search import shards as module
from retrieval.search.index import Shard
from retrieval.search.settings import IndexConfig
from retrieval.search.shards import (
    IndexPlan,
    assign_rows,
    begin_index,
    num_shards,
    plan_index,
    seal_index,
    write_shard,
    write_trained,
)

DIM = 4


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Folder, Folder, Folder]:
    """Collection, embeddings and an empty index folder: 60 images in two parts, image i embedded as (i, 0, 0, 1)."""
    collection, embeddings, out = (Folder.of(tmp_path / name) for name in ("collection", "embeddings", "index"))
    names = [f"{(i * 37) % 60:02d}.jpg" for i in range(60)]
    rows = [
        {"image_id": name, "label": "x", "split": "gallery" if i % 3 else "dropped", "part": i // 30, "row": i % 30}
        for i, name in enumerate(names)
    ]
    collection.write_table("catalog.parquet", pa.Table.from_pylist(rows, schema=CATALOG_SCHEMA))
    for part in (0, 1):
        mine = names[part * 30 : part * 30 + 30]
        columns = {"image_id": mine, "embedding": [[float(name[:2]), 0, 0, 1] for name in mine]}
        embeddings.write_table(part_name(part), pa.table(columns, schema=EMBEDDING_SCHEMA))
    return collection, embeddings, out


def test_rows_are_sorted_by_image_id_and_other_splits_counted(folders: tuple[Folder, Folder, Folder]) -> None:
    collection, _, out = folders
    assert assign_rows(collection, out, ["gallery", "train"]) == {"gallery": 40, "dropped": 20}
    ids = out.read_table(IDS)["image_id"].to_pylist()
    assert ids == sorted(ids)
    assert len(ids) == 40


def test_images_without_an_embedding_are_not_indexed(folders: tuple[Folder, Folder, Folder]) -> None:
    collection, embeddings, out = folders
    assert assign_rows(collection, out, ["gallery"], embeddings) == {"gallery": 40, "dropped": 20}
    ids = out.read_table(IDS)["image_id"].to_pylist()
    rejected = [{"image_id": ids[3], "stage": "embeddings", "reason": "crashed", "detail": "SIGSEGV"}]
    embeddings.write_table("rejected.parquet", pa.Table.from_pylist(rejected))
    assert assign_rows(collection, out, ["gallery"], embeddings) == {"gallery": 39, "dropped": 20}
    assert out.read_table(IDS)["image_id"].to_pylist() == [one for one in ids if one != ids[3]]


def test_a_shard_reads_only_the_parts_it_holds(folders: tuple[Folder, Folder, Folder]) -> None:
    collection, embeddings, out = folders
    assign_rows(collection, out, ["gallery"])
    write_trained(embeddings, out, IndexConfig(), DIM)
    embeddings.remove(part_name(1))
    done = write_shard(embeddings, out, IndexConfig(), DIM, shard=0, shards=2)
    assert (done["name"], done["num"]) == ("shard-00000.faiss", 20)
    ids = np.array(out.read_table(IDS)["image_id"].to_pylist())
    shard = Shard.load(out, str(done["name"]))
    found = shard.search(np.array([[1, 0, 0, 0]], np.float32), 20)
    assert found.scores[0].tolist() == [float(name[:2]) for name in ids[found.rows[0]]]
    with pytest.raises(FileNotFoundError):
        write_shard(embeddings, out, IndexConfig(), DIM, shard=1, shards=2)


def test_the_training_sample_is_drawn_by_seed_and_no_larger_than_asked(folders: tuple[Folder, Folder, Folder]) -> None:
    collection, embeddings, out = folders
    assign_rows(collection, out, ["gallery"])
    trained = {}
    for seed in (0, 0, 1):
        config = IndexConfig(factory="IVF2,Flat", train_sample=10, seed=seed)
        assert write_trained(embeddings, out, config, DIM) == 10
        again = out.read_bytes(TRAINED)
        assert trained.setdefault(seed, again) == again
        out.remove(TRAINED)
    assert trained[0] != trained[1]
    assert write_trained(embeddings, out, IndexConfig(), DIM) == 0


@pytest.mark.parametrize(
    ("wanted", "images", "dim", "expected"),
    [
        *[("auto", 10, 128, 1), ("auto", 500_000, 128, 1), ("auto", 500_001, 128, 2), (8, 100, 128, 8), (8, 3, 128, 3)],
        *[("auto", 131_072, 2048, 1), ("auto", 131_073, 2048, 2), ("auto", 500_000, 2048, 4), (1, 500_000, 2048, 1)],
    ],
)
def test_number_of_shards(wanted: int, images: int, dim: int, expected: int) -> None:
    """Half a million images at most, and a GiB of vectors."""
    assert num_shards(IndexConfig(num_shards=wanted), images, dim) == expected


def test_embeddings_of_another_dimension_are_refused(folders: tuple[Folder, Folder, Folder]) -> None:
    collection, embeddings, out = folders
    assign_rows(collection, out, ["gallery"])
    with pytest.raises(ValueError, match="not every embedding has 8 values"):
        write_shard(embeddings, out, IndexConfig(factory="KDTree"), 8, shard=0, shards=1)


def test_each_row_says_where_its_image_lies(folders: tuple[Folder, Folder, Folder]) -> None:
    collection, _, out = folders
    assign_rows(collection, out, ["gallery"])
    catalog = {row["image_id"]: row for row in collection.read_table("catalog.parquet").to_pylist()}
    rows = out.read_table(IDS).to_pylist()
    assert list(rows[0]) == ["image_id", "label", "part", "row_in_part"]
    for row in rows:
        there = catalog[row["image_id"]]
        assert (row["part"], row["row_in_part"], row["label"]) == (there["part"], there["row"], "x")
        assert there["split"] == "gallery"


def test_names_are_in_order_of_their_bytes(tmp_path: Path) -> None:
    names = ["Z.jpg", "a.jpg", "é.jpg", "B.jpg", "a/b.jpg", "\ufb00.jpg", "\U0001d4b3.jpg"]
    listed = [
        {"image_id": name, "split": "gallery", "part": 0, "row": row, "label": None} for row, name in enumerate(names)
    ]
    collection, out = Folder.of(tmp_path / "c"), Folder.of(tmp_path / "i")
    collection.write_table("catalog.parquet", pa.Table.from_pylist(listed, schema=CATALOG_SCHEMA))
    assign_rows(collection, out, ["gallery"])
    assert out.read_table(IDS)["image_id"].to_pylist() == sorted(names, key=str.encode)


def test_splits_without_images_are_named_with_those_there_are(folders: tuple[Folder, Folder, Folder]) -> None:
    collection, _, out = folders
    with pytest.raises(ValueError, match="No image .* in splits .'val',.*'gallery': 40"):
        assign_rows(collection, out, ["val"])


@pytest.mark.parametrize("shards", [1, 3, 7])
def test_shards_share_out_all_images_evenly_each_with_its_own_vectors(
    folders: tuple[Folder, Folder, Folder], shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection, embeddings, out = folders
    monkeypatch.setattr(folder_module, "GROUP", 9)
    assign_rows(collection, out, ["gallery"])
    ids = out.read_table(IDS)["image_id"].to_pylist()
    config, rows = IndexConfig(factory="KDTree", leaf_size=4), []
    for number in range(shards):
        done = write_shard(embeddings, out, config, DIM, shard=number, shards=shards)
        assert done["name"] == f"shard-{number:05d}.kdtree"
        assert done["sha256"] == hash_file(out, str(done["name"]))
        assert done["bytes"] == len(out.read_bytes(str(done["name"])))
        shard = Shard.load(out, str(done["name"]))
        assert done["num"] == done["taken"] == len(shard.rows)
        vectors = shard.engine.vectors_of(np.arange(len(shard.rows)))
        assert vectors is not None
        assert vectors[:, 0].tolist() == [float(ids[row][:2]) for row in shard.rows]
        rows.append(shard.rows)
    assert sorted(np.concatenate(rows).tolist()) == list(range(40))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_what_is_there_is_not_made_again(folders: tuple[Folder, Folder, Folder]) -> None:
    collection, embeddings, out = folders
    config = IndexConfig(factory="IVF2,Flat", train_sample=10)
    assign_rows(collection, out, ["gallery"])
    write_trained(embeddings, out, config, DIM)
    first = write_shard(embeddings, out, config, DIM, shard=0, shards=1)
    out.write_bytes(TRAINED, b"mark", about={})
    for part in (0, 1):
        embeddings.remove(part_name(part))
    assert write_trained(embeddings, out, config, DIM) == 10
    assert out.read_bytes(TRAINED) == b"mark"
    assert write_shard(embeddings, out, config, DIM, shard=0, shards=1) == first


def test_a_kd_tree_starts_from_nothing(folders: tuple[Folder, Folder, Folder]) -> None:
    collection, embeddings, out = folders
    assign_rows(collection, out, ["gallery"])
    assert write_trained(embeddings, out, IndexConfig(factory="KDTree"), DIM) == 0
    assert not out.exists(TRAINED)


def test_the_sample_is_of_indexed_images_without_repeats(folders: tuple[Folder, Folder, Folder]) -> None:
    """As many samples as there are images, one centroid each: an IVF trained on all of them has each as a centroid."""
    collection, embeddings, out = folders
    assign_rows(collection, out, ["gallery"])
    config = IndexConfig(factory="IVF40,Flat", train_sample=1000)
    assert write_trained(embeddings, out, config, DIM) == 40
    index = faiss.deserialize_index(np.frombuffer(out.read_bytes(TRAINED), np.uint8))
    centroids = index.quantizer.reconstruct_n(0, 40)[:, 0]
    wanted = [float(name[:2]) for name in out.read_table(IDS)["image_id"].to_pylist()]
    assert sorted(centroids.round(3).tolist()) == sorted(wanted)


def test_the_draw_of_the_sample_is_the_seed_s(
    folders: tuple[Folder, Folder, Folder], monkeypatch: pytest.MonkeyPatch
) -> None:
    collection, embeddings, out = folders
    assign_rows(collection, out, ["gallery"])
    drawn: list[list[float]] = []
    monkeypatch.setattr(module, "train_index", lambda _, sample, threads: drawn.append(sample[:, 0].tolist()) or b"x")
    for seed in (0, 0, 1):
        write_trained(embeddings, out, IndexConfig(factory="IVF2,Flat", train_sample=15, seed=seed), DIM)
        out.remove(TRAINED)
    assert drawn[0] == drawn[1] != drawn[2]
    indexed = {float(name[:2]) for name in out.read_table(IDS)["image_id"].to_pylist()}
    for sample in drawn:
        assert len(set(sample)) == 15 and set(sample) <= indexed


# The life of an index, as the job and the fixtures of other tests make it.


@pytest.fixture
def sealed(folders: tuple[Folder, Folder, Folder]) -> tuple[Folder, Folder, Folder]:
    collection, embeddings, out = folders
    made = seal(collection, kind="collection", config={}, inputs={}, counts={})
    inputs = {"collection": made.fingerprint, "model": "m" * 64}
    seal(embeddings, kind="embeddings", config={}, inputs=inputs, counts={"num": 60, "dim": DIM})
    return collection, embeddings, out


def make(plan: IndexPlan, shards: int = 2, lose: int = 0) -> Manifest:
    found = assign_rows(plan.collection, plan.out, plan.splits)
    trained_on = write_trained(plan.embeddings, plan.out, plan.config, plan.dim)
    work = plan.embeddings, plan.out, plan.config, plan.dim
    done = [write_shard(*work, shard, shards) for shard in reversed(range(shards))]
    return seal_index(plan, found, trained_on, done[lose:])


def test_a_sealed_index_says_what_it_is_made_of(sealed: tuple[Folder, Folder, Folder]) -> None:
    collection, embeddings, out = sealed
    config = IndexConfig(factory="IVF2,Flat", train_sample=20)
    plan = plan_index(embeddings, collection, out, ("gallery",), config)
    assert (plan.num, plan.dim) == (60, DIM)
    assert begin_index(plan) is None
    manifest = make(plan)
    assert factory_of(read_manifest(out, "index")) == "IVF2,Flat"
    made_of = {"embeddings": read_manifest(embeddings).fingerprint, "model": "m" * 64}
    assert manifest.inputs == {**made_of, "collection": read_manifest(collection).fingerprint}
    sizes = [len(out.read_bytes(f"shard-{shard:05d}.faiss")) for shard in (0, 1)]
    assert manifest.counts == {"num": 40, "dim": DIM, "shards": 2, "trained_on": 20, "bytes": sum(sizes)}
    assert manifest.books == [{"stage": "index", "taken": 60, "kept": 40, "rejected": {"split-dropped": 20}}]
    assert sorted(manifest.files) == [IDS, "shard-00000.faiss", "shard-00001.faiss", TRAINED]
    assert all(hash_file(out, name) == known for name, known in manifest.files.items())


def test_an_index_is_found_again_and_other_work_is_refused(sealed: tuple[Folder, Folder, Folder]) -> None:
    collection, embeddings, out = sealed
    plan = plan_index(embeddings, collection, out, ("gallery",), IndexConfig())
    begin_index(plan)
    done = make(plan)
    assert begin_index(plan) == done
    for splits, config in ((("gallery", "dropped"), IndexConfig()), (("gallery",), IndexConfig(seed=1))):
        with pytest.raises(ValueError, match="made with other settings"):
            begin_index(plan_index(embeddings, collection, out, splits, config))


def test_an_index_that_lost_a_shard_is_not_sealed(sealed: tuple[Folder, Folder, Folder]) -> None:
    collection, embeddings, out = sealed
    plan = plan_index(embeddings, collection, out, ("gallery",), IndexConfig())
    begin_index(plan)
    with pytest.raises(ValueError, match="do not balance: 60 in, 20 kept"):
        make(plan, lose=1)
    assert not out.exists(MANIFEST)


def test_nothing_is_written_for_what_cannot_be(sealed: tuple[Folder, Folder, Folder], tmp_path: Path) -> None:
    collection, embeddings, out = sealed
    with pytest.raises(ValueError, match="could not parse"):
        plan_index(embeddings, collection, out, ("gallery",), IndexConfig(factory="Flatt"))
    other = Folder.of(tmp_path / "other")
    seal(other, kind="collection", config={"size": 1}, inputs={}, counts={})
    with pytest.raises(ValueError, match="made with collection"):
        plan_index(embeddings, other, out, ("gallery",), IndexConfig())
    for kind, folders in (("embeddings", (collection, collection)), ("collection", (embeddings, embeddings))):
        with pytest.raises(ValueError, match=f"expected a '{kind}'"):
            plan_index(*folders, out, ("gallery",), IndexConfig())
    assert not out.exists(STARTED)
