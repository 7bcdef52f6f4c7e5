"""Tuples' tables: what is stored is read back, by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import seal
from retrieval.artifacts.tuples import (
    IMAGES as IMAGES_FILE,
)
from retrieval.artifacts.tuples import (
    IMAGES_SCHEMA,
    REGISTERED,
    REJECTED,
    TUPLES,
    TUPLES_SCHEMA,
    UNREGISTERED,
    as_set,
    read_images,
    read_tuples,
    write_tuples,
)

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
    known, expected = read_tuples(folder), as_set(*tables())
    assert known.queries.tolist() == [2, 0]
    assert known.image_ids == expected.image_ids and known.usable.tolist() == expected.usable.tolist()
    assert known.shared_points[0].dtype == known.candidates[0].dtype == np.int64
    assert known.scale_change[0].dtype == np.float64
    images = read_images(folder)
    assert images.schema.equals(IMAGES_SCHEMA)
    assert images["image_id"].to_pylist() == ["a", "b", "c"]
    assert images["status"].to_pylist() == [REJECTED, UNREGISTERED, REGISTERED]
    seal(folder, kind="model", config={}, inputs={}, counts={})
    for read in (read_tuples, read_images):
        with pytest.raises(ValueError, match="expected a 'tuples'"):
            read(folder)


def test_numbers_are_stored_in_the_schema_s_types(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    images, found = tables()
    wide = images.set_column(1, "cluster", images["cluster"].cast(pa.int64()))
    write_tuples(folder, wide, found)
    assert folder.read_table(IMAGES_FILE).schema.equals(IMAGES_SCHEMA)
    assert folder.read_table(TUPLES).schema.equals(TUPLES_SCHEMA)
    with pytest.raises(ValueError, match="names"):  # a column too few is no table of ours
        write_tuples(folder, images.drop_columns(["reason"]), found)
