"""build_index on a real local Ray: books, resume, refusal, and the same answers however the work is cut up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ray_jobs.build_index import BuildIndexConfig, main
from retrieval.artifacts.collection import CATALOG_SCHEMA
from retrieval.artifacts.embeddings import EMBEDDING_SCHEMA
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.index import CHOICE, CHOSEN, factory_of
from retrieval.artifacts.manifest import MANIFEST, begin, read_manifest, seal
from retrieval.search.index import Searcher
from retrieval.search.settings import IndexConfig

pytestmark = pytest.mark.usefixtures("ray_local")

DIM = 16
PART_SIZES = (40, 7, 53)
SPLITS = ("query", "gallery", "gallery", "train", "val", "dropped")


def make_inputs(root: Path, seed: int = 0) -> tuple[Folder, Folder, dict[str, np.ndarray]]:
    """A sealed catalog and its embeddings in three uneven parts; names in no order, some vectors equal."""
    rng = np.random.default_rng(seed)
    collection, embeddings = Folder.of(root / "collection"), Folder.of(root / "embeddings")
    total = sum(PART_SIZES)
    names = [f"person {i % 9}/\u00e9{i:03d}.jpg" for i in rng.permutation(total)]
    vectors = rng.normal(size=(total, DIM)).astype(np.float32)
    vectors[60:90] = vectors[3]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    begin(collection, kind="collection", config={}, inputs={})
    begin(embeddings, kind="embeddings", config={}, inputs={})
    rows, start = [], 0
    for part, size in enumerate(PART_SIZES):
        mine = range(start, start + size)
        columns = {"image_id": [names[i] for i in mine], "embedding": [vectors[i] for i in mine]}
        embeddings.write_table(part_name(part), pa.table(columns, schema=EMBEDDING_SCHEMA))
        rows += [
            {"image_id": names[i], "label": f"p{i % 9}", "split": SPLITS[i % 6], "part": part, "row": i - start}
            for i in mine
        ]
        start += size
    collection.write_table("catalog.parquet", pa.Table.from_pylist(rows, schema=CATALOG_SCHEMA))
    made = seal(collection, kind="collection", config={}, inputs={}, counts={"stored": total})
    inputs = {"collection": made.fingerprint, "model": "m" * 64}
    seal(embeddings, kind="embeddings", config={}, inputs=inputs, counts={"num": total, "dim": DIM})
    return collection, embeddings, {names[i]: vectors[i] for i in range(total) if SPLITS[i % 6] != "dropped"}


def config(collection: Folder, embeddings: Folder, out: Path, **index: object) -> BuildIndexConfig:
    settings = IndexConfig(**index)  # type: ignore[arg-type]
    return BuildIndexConfig(embeddings=str(embeddings), collection=str(collection), out=str(out), index=settings)


@pytest.mark.parametrize(("factory", "shards"), [("Flat", 1), ("Flat", 3), ("Flat", 8), ("KDTree", 3)])
def test_any_sharding_answers_as_a_plain_loop_does(tmp_path: Path, factory: str, shards: int) -> None:
    collection, embeddings, vectors = make_inputs(tmp_path)
    manifest = main(config(collection, embeddings, tmp_path / "index", factory=factory, num_shards=shards))
    assert manifest.counts["shards"] == shards
    assert manifest.counts["num"] == len(vectors)
    searcher = Searcher.open(tmp_path / "index")
    assert list(searcher.ids) == sorted(vectors)
    query = np.stack([vectors[name] for name in searcher.ids[:20]])
    found = searcher.search(query, k=25)
    for one, rows in zip(query, found.rows, strict=True):
        exact = {name: np.float32(np.dot(one.astype(float), vector.astype(float))) for name, vector in vectors.items()}
        assert list(searcher.ids[rows]) == sorted(vectors, key=lambda name: (-exact[name], name))[:25]


def test_ids_point_at_the_stored_images(tmp_path: Path) -> None:
    collection, embeddings, _ = make_inputs(tmp_path)
    main(config(collection, embeddings, tmp_path / "index"))
    searcher = Searcher.open(tmp_path / "index")
    for part in range(len(PART_SIZES)):
        stored = embeddings.read_table(part_name(part))["image_id"].to_pylist()
        mine = np.flatnonzero(searcher.parts == part)
        assert [stored[row] for row in searcher.rows_in_part[mine]] == list(searcher.ids[mine])


def test_books_name_what_was_left_out_and_inputs_what_it_was_made_from(tmp_path: Path) -> None:
    collection, embeddings, _ = make_inputs(tmp_path)
    cfg = config(collection, embeddings, tmp_path / "index")
    manifest = main(BuildIndexConfig(**{**fields(cfg), "splits": ("gallery",)}))
    (book,) = manifest.books
    gallery = sum(SPLITS[i % 6] == "gallery" for i in range(100))
    assert (book["taken"], book["kept"]) == (100, gallery)
    assert set(book["rejected"]) == {"split-query", "split-train", "split-val", "split-dropped"}
    embedded = read_manifest(embeddings)
    assert manifest.inputs == {"embeddings": embedded.fingerprint, **embedded.inputs}


def fields(cfg: BuildIndexConfig) -> dict[str, object]:
    return {name: getattr(cfg, name) for name in cfg.__dataclass_fields__}


def test_second_run_is_skipped_and_an_interrupted_one_comes_out_the_same(tmp_path: Path) -> None:
    collection, embeddings, _ = make_inputs(tmp_path)
    cfg = config(collection, embeddings, tmp_path / "index", factory="IVF2,Flat", num_shards=3)
    first = main(cfg)
    out = Folder.of(cfg.out)
    assert first.counts["trained_on"] == first.counts["num"]
    assert main(cfg) == first
    # As a driver killed after shard 0 leaves it: no manifest, some of the files.
    started = {"kind": "index", "config": first.config, "inputs": first.inputs}
    out.remove(MANIFEST)
    out.remove("shard-00002.faiss")
    out.write_json("started.json", started)
    again = main(cfg)
    assert again.files == first.files
    assert again.fingerprint == first.fingerprint


def test_other_collection_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    collection, embeddings, _ = make_inputs(tmp_path / "a")
    other = Folder.of(tmp_path / "b")
    begin(other, kind="collection", config={"seed": 1}, inputs={})
    other.write_table("catalog.parquet", collection.read_table("catalog.parquet"))
    seal(other, kind="collection", config={"seed": 1}, inputs={}, counts={})
    with pytest.raises(ValueError, match="The embeddings .* were made with collection .* or make them again"):
        main(config(other, embeddings, tmp_path / "index"))
    assert not (tmp_path / "index").exists()


def test_changed_settings_need_another_folder(tmp_path: Path) -> None:
    collection, embeddings, _ = make_inputs(tmp_path)
    main(config(collection, embeddings, tmp_path / "index"))
    with pytest.raises(ValueError, match=r"config\.index"):
        main(config(collection, embeddings, tmp_path / "index", factory="HNSW8"))


@pytest.mark.parametrize(
    ("factory", "message"),
    [("Flatt", "factory string 'Flatt'"), ("IVF500,Flat", "needs at least 500 training embeddings")],
)
def test_unusable_factories_say_what_to_do(tmp_path: Path, factory: str, message: str) -> None:
    collection, embeddings, _ = make_inputs(tmp_path)
    with pytest.raises(ValueError, match=message):
        main(config(collection, embeddings, tmp_path / "index", factory=factory))


def test_no_image_in_the_splits(tmp_path: Path) -> None:
    collection, embeddings, _ = make_inputs(tmp_path)
    cfg = config(collection, embeddings, tmp_path / "index")
    with pytest.raises(ValueError, match="Choose from these"):
        main(BuildIndexConfig(**{**fields(cfg), "splits": ("test",)}))


def test_embeddings_that_do_not_match_the_catalog_are_refused(tmp_path: Path) -> None:
    collection, embeddings, _ = make_inputs(tmp_path)
    table = embeddings.read_table(part_name(1))
    embeddings.write_table(part_name(1), table.take(list(reversed(range(len(table))))))
    with pytest.raises(ValueError, match="holds other images"):
        main(config(collection, embeddings, tmp_path / "index"))


def test_an_index_keeps_its_promise_or_is_not_sealed(tmp_path: Path) -> None:
    """Of 83 images an exact search is quick enough for any; a graph that may take no memory is refused."""
    collection, embeddings, vectors = make_inputs(tmp_path)
    asked = {"recall": 0.9, "memory": "1GB", "latency": "5s"}
    manifest = main(config(collection, embeddings, tmp_path / "index", num_shards=2, **asked))
    promise = manifest.counts["promise"]
    assert (promise["factory"], promise["recall"], factory_of(manifest)) == ("Flat", 1, "Flat")
    assert promise["bytes"] > 64 * len(vectors) and 0 < promise["seconds"] < 5
    assert {CHOSEN, CHOICE} <= set(manifest.files)
    assert Folder.of(tmp_path / "index").read_bytes(CHOICE).startswith(b"\x89PNG")
    assert len(Searcher.open(tmp_path / "index").search(np.ones((1, DIM)), 3).rows[0]) == 3
    with pytest.raises(ValueError, match="keeps recall 0.9, memory 1kB .*HNSW8 ef 16.*breaks memory"):
        main(config(collection, embeddings, tmp_path / "other", factory="HNSW8", recall=0.9, memory="1kB"))
    assert not (tmp_path / "other" / MANIFEST).exists()
