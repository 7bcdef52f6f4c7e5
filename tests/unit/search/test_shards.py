"""Rows, samples and shard files, without a cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.collection import CATALOG_SCHEMA
from retrieval.artifacts.embeddings import EMBEDDING_SCHEMA
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.index import IDS, TRAINED
from retrieval.search.index import Shard
from retrieval.search.settings import IndexConfig
from retrieval.search.shards import assign_rows, num_shards, write_shard, write_trained

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
    ("wanted", "images", "expected"),
    [("auto", 10, 1), ("auto", 500_000, 1), ("auto", 500_001, 2), (8, 100, 8), (8, 3, 3)],
)
def test_number_of_shards(wanted: int, images: int, expected: int) -> None:
    assert num_shards(IndexConfig(num_shards=wanted), images) == expected


def test_embeddings_of_another_dimension_are_refused(folders: tuple[Folder, Folder, Folder]) -> None:
    collection, embeddings, out = folders
    assign_rows(collection, out, ["gallery"])
    with pytest.raises(ValueError, match="not every embedding has 8 values"):
        write_shard(embeddings, out, IndexConfig(factory="KDTree"), 8, shard=0, shards=1)
