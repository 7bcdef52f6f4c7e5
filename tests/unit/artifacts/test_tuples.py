"""Tuples' tables: what is stored is read back, by row."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import seal
from retrieval.artifacts.tuples import IMAGES_SCHEMA, TUPLES_SCHEMA, as_set, read_tuples, write_tuples

# Not in the order of their names, which is the order that rows are counted in.
IMAGES = [("c", 7, "val", "registered"), ("a", 5, "train", "rejected"), ("b", 7, "val", "unregistered")]


def tables() -> tuple[pa.Table, pa.Table]:
    images = [
        {"image_id": name, "cluster": cluster, "split": split, "status": status, "model": -1, "num_points": 0}
        for name, cluster, split, status in IMAGES
    ]
    found = [
        {"query": "c", "candidates": ["a", "b"], "shared_points": [9, 4], "scale_change": [1.5, 2.0]},
        {"query": "a", "candidates": ["c"], "shared_points": [9], "scale_change": [1.5]},
    ]
    rows = [row | {"cluster": 7, "split": "val"} for row in found]
    return pa.Table.from_pylist(images, IMAGES_SCHEMA), pa.Table.from_pylist(rows, TUPLES_SCHEMA)


def test_tuples_are_read_back_by_row() -> None:
    known = as_set(*tables())
    assert known.image_ids == ["a", "b", "c"]
    assert known.clusters.tolist() == [5, 7, 7]
    assert known.splits.tolist() == ["train", "val", "val"]
    assert known.usable.tolist() == [False, True, True]
    assert known.queries.tolist() == [2, 0]
    assert [rows.tolist() for rows in known.candidates] == [[0, 1], [2]]
    assert [shared.tolist() for shared in known.shared_points] == [[9, 4], [9]]
    assert [change.tolist() for change in known.scale_change] == [[1.5, 2.0], [1.5]]


def test_tables_come_back_from_storage(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    write_tuples(folder, *tables())
    with pytest.raises(ValueError, match="No sealed tuples"):
        read_tuples(folder)
    seal(folder, kind="tuples", config={}, inputs={}, counts={})
    assert read_tuples(folder).queries.tolist() == [2, 0]
