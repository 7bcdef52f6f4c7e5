"""Stored photos are decoded as they were asked for, of some splits or of all, and what cannot be read says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from retrieval.artifacts.collection import IMAGE_SCHEMA
from retrieval.artifacts.folder import Folder, part_name
from retrieval.data.recheck import decode_part, try_stored
from retrieval.images.native import BadImage
from tests.support.patterns import make_patterns


@pytest.fixture
def collection(tmp_path: Path) -> Folder:
    """Of nine photos, five in the first part: three people to train on, one to ask with."""
    make_patterns(tmp_path / "collection", train=2, val=0, query=1, shots=3, part_size=5)
    return Folder.of(tmp_path / "collection")


def ids(collection: Folder, part: int, split: str | None = None) -> list[str]:
    names = collection.read_table(f"images/{part_name(part)}")["image_id"].to_pylist()
    catalog = collection.read_table("catalog.parquet").to_pylist()
    splits = {row["image_id"]: row["split"] for row in catalog}
    return [name for name in names if split in (None, splits[name])]


def damage(collection: Folder, image_id: str) -> None:
    for part in (0, 1):
        rows = collection.read_table(f"images/{part_name(part)}").to_pylist()
        for row in rows:
            row["jpeg"] = b"text" if row["image_id"] == image_id else row["jpeg"]
        collection.write_table(f"images/{part_name(part)}", pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA))


def test_the_photos_that_are_asked_for_are_decoded_and_counted(collection: Folder) -> None:
    told: list[Any] = []
    names = ids(collection, 0)
    assert try_stored(collection, 0, [2, 0], progress=lambda *tell: told.append(tell), more="ignored") == names
    assert told == [("photos", 0, 2), ("photos", 1, 2), ("photos", 2, 2)]
    assert try_stored(collection, 0, []) == names
    damage(collection, names[1])
    assert try_stored(collection, 0, [0, 2, 3, 4]) == names
    with pytest.raises(BadImage, match="A stored image cannot be read"):
        try_stored(collection, 0, [1])


def test_photos_of_other_splits_are_not_looked_at(collection: Folder) -> None:
    ours, theirs = ids(collection, 0, "train"), ids(collection, 0, "query")
    assert ours and theirs
    assert try_stored(collection, 0, range(len(ours)), splits=("train",)) == ours
    damage(collection, theirs[0])
    assert try_stored(collection, 0, range(len(ours)), splits=("train",)) == ours
    assert decode_part(collection, 0, splits=("train", "val"))["taken"] == len(ours)
    with pytest.raises(BadImage, match="A stored image cannot be read"):
        decode_part(collection, 0)


def test_a_part_is_decoded_without_those_that_are_left_out(collection: Folder) -> None:
    names = ids(collection, 1)
    damage(collection, names[2])
    assert decode_part(collection, 1, without={2: BadImage("crashed", "SIGSEGV")}) == {
        "part": 1,
        "taken": len(names),
        "broken": 1,
        "left": [{"image_id": names[2], "reason": "crashed", "detail": "SIGSEGV"}],
    }
    with pytest.raises(BadImage, match="A stored image cannot be read"):
        decode_part(collection, 1, without={1: BadImage("crashed", "SIGSEGV")})
