"""A localised collection holds the wanted photos, once a node, whatever order its parts have."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from retrieval.artifacts.collection import CATALOG_SCHEMA, localise
from retrieval.artifacts.folder import Folder
from retrieval.training.feature_cache import FeatureCache
from tests.support.patterns import local_patterns, make_patterns


def test_localised_rows_are_the_collection_s(tmp_path: Path) -> None:
    local = local_patterns(tmp_path, train=4, val=2, query=2, shots=3)
    folder = Folder.of(tmp_path / "collection")
    stored = {}
    for name in (name for name in folder.list() if name.startswith("images/")):
        stored |= {row["image_id"]: row["jpeg"] for row in folder.read_table(name, ["image_id", "jpeg"]).to_pylist()}
    catalog = {row["image_id"]: row for row in folder.read_table("catalog.parquet").to_pylist()}
    wanted = {image_id for image_id, row in catalog.items() if row["split"] in ("train", "val")}
    assert len(local) == 18 and set(local.image_ids) == wanted
    for row, jpeg in enumerate(local.jpegs(range(len(local)))):
        image_id = local.image_ids[row]
        assert jpeg == stored[image_id]
        assert (local.labels[row], local.splits[row]) == (catalog[image_id]["label"], catalog[image_id]["split"])
    assert set(local.splits[local.rows_of("val")]) == {"val"} and len(local.rows_of("val")) == 6
    assert local.jpegs(np.array([5, 2])) == [local.jpegs([5])[0], local.jpegs([2])[0]]


def test_many_processes_of_a_node_share_one_copy(tmp_path: Path) -> None:
    make_patterns(tmp_path / "collection", train=3, val=1, query=0, shots=2)
    folder, cache = Folder.of(tmp_path / "collection"), tmp_path / "cache"
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: localise(folder, cache, ("train", "val")), range(4)))
    assert len({local.path for local in found}) == 1 and [len(local) for local in found] == [8] * 4
    assert len(list(cache.glob("*.arrow"))) == 1 and not list(cache.glob("*.tmp-*"))
    written = found[0].path.stat().st_mtime_ns
    assert localise(folder, cache, ("val", "train")).path.stat().st_mtime_ns == written
    assert localise(folder, cache, ("val",)).path != found[0].path


def test_no_such_split_and_no_collection_are_said_in_words(tmp_path: Path) -> None:
    make_patterns(tmp_path / "collection", train=2, val=0, query=0, shots=2)
    with pytest.raises(ValueError, match="has no image in the splits val.*Training needs labelled photos"):
        localise(Folder.of(tmp_path / "collection"), tmp_path / "cache", ("val",))
    with pytest.raises(ValueError, match="No sealed collection"):
        localise(Folder.of(tmp_path / "absent"), tmp_path / "cache", ("val",))


def test_a_catalogue_that_disagrees_with_its_parts_is_refused(tmp_path: Path) -> None:
    make_patterns(tmp_path / "collection", train=2, val=0, query=0, shots=2)
    folder = Folder.of(tmp_path / "collection")
    rows = folder.read_table("catalog.parquet").to_pylist()
    rows[0]["row"], rows[1]["row"] = rows[1]["row"], rows[0]["row"]
    folder.write_table("catalog.parquet", pa.Table.from_pylist(rows, schema=CATALOG_SCHEMA))
    with pytest.raises(ValueError, match="disagree. Ingest again"):
        localise(folder, tmp_path / "cache", ("train",))


def test_feature_cache_gives_back_each_row_under_each_view(tmp_path: Path) -> None:
    """Two caches on one file, as two ranks of a node have it, each filling its share."""
    path = tmp_path / "cache" / "maps.f16"
    caches = [FeatureCache(path, 5, 2, (3, 2, 2)) for _ in range(2)]

    def pixels(rows: object, view: int) -> torch.Tensor:
        assert isinstance(rows, list)
        return torch.tensor([100 * view + row for row in rows])

    for cache, rows in zip(caches, ([0, 2, 4], [1, 3]), strict=True):
        cache.fill(np.array(rows), pixels, lambda x: x.view(-1, 1, 1, 1).expand(-1, 3, 2, 2) + 0.5, batch_size=2)
    got = caches[0].read([3, 0, 3], np.array([1, 0, 0]))
    assert got.dtype == torch.float32 and got.shape == (3, 3, 2, 2)
    assert got[:, 0, 0, 0].tolist() == [103.5, 0.5, 3.5]
    assert caches[1].read([4], 1)[0, 2, 1, 1] == 104.5
    assert caches[0].num_bytes == path.stat().st_size == 5 * 2 * 12 * 2


def test_feature_cache_clamps_to_the_range_of_float16(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "maps.f16", 1, 1, (2, 1, 1))
    big = torch.tensor([1e9, -1e9]).view(1, 2, 1, 1)
    cache.fill(np.array([0]), lambda _rows, _view: torch.zeros(1), lambda _: big)
    assert cache.read([0], 0).flatten().tolist() == [65504, -65504]
