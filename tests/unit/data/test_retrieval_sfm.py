"""Tuples that others found: the pickle of the retrieval-SfM database."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.tuples import IMAGES_SCHEMA, TUPLES_SCHEMA
from retrieval.data import retrieval_sfm
from retrieval.geometry.tuples import write


def listed(image_ids: Sequence[str]) -> pa.Table:
    return pa.table({"image_id": pa.array(image_ids, pa.string()), "label": pa.nulls(len(image_ids), pa.string())})


def by_id(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for row in table.to_pylist()}


def database(**changes: Any) -> dict[str, Any]:
    """Two places of three photos to train, one of two to validate; one photo alone in its cluster."""
    train = {"cids": list("abcdefx"), "cluster": [0, 0, 0, 1, 1, 1, 2], "qidxs": [0, 0, 3, 4], "pidxs": [1, 2, 4, 5]}
    val = {"cids": list("uv"), "cluster": [0, 0], "qidxs": [1], "pidxs": [0]}
    return {"train": train | changes, "val": val}


def stored(tmp_path: Path, value: Any) -> str:
    (tmp_path / "retrieval-SfM-tiny.pkl").write_bytes(pickle.dumps(value, protocol=2))
    return str(tmp_path / "retrieval-SfM-tiny.pkl")


def test_a_database_s_pairs_and_clusters_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image_ids = [f"ims/{name}" for name in "abcdefuvxz"]
    numbers = {name: np.array(database()["train"][name]) for name in ("cluster", "qidxs", "pidxs")}
    for value in (database(), database(**numbers)):
        images, found = retrieval_sfm.from_database(listed(image_ids), stored(tmp_path, value))
        assert not caplog.text
        known = {row["query"][4:]: [name[4:] for name in row["candidates"]] for row in found.to_pylist()}
        assert known == {"a": ["b", "c"], "d": ["e"], "e": ["f"], "v": ["u"]}
        rows = by_id(images)
        clusters = [{rows[f"ims/{name}"]["cluster"] for name in names} for names in ("abc", "def", "uv", "x", "z")]
        assert [len(own) for own in clusters] == [1] * 5 and len(set().union(*clusters)) == 5
        assert {row["split"] for name, row in rows.items() if name[4:] in "uv"} == {"val"}
        assert (rows["ims/z"]["status"], rows["ims/z"]["reason"]) == ("unregistered", "not in the database")
        counts = write(Folder.of(tmp_path / "out"), images, found, ())
        assert (counts["images"], counts["registered"], counts["unregistered"]) == (10, 9, {"not in the database": 1})


def test_photos_that_are_missing_are_counted_and_take_their_pairs_along(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = stored(tmp_path, database())
    images, found = retrieval_sfm.from_database(listed([f"ims/{name}.jpg" for name in "acdefu"]), path)
    assert "3 images of" in caplog.text  # b, x and v
    assert [row["query"] for row in found.to_pylist()] == ["ims/a.jpg", "ims/d.jpg", "ims/e.jpg"]
    assert found["candidates"].to_pylist()[0] == ["ims/c.jpg"]
    assert len(images) == 6
    with pytest.raises(ValueError, match="No pair of .* is among the 2 photos"):
        retrieval_sfm.from_database(listed(["ims/a", "ims/u"]), path)


class Attack:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_a_database_that_would_run_something_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = stored(tmp_path, database(qidxs=Attack(mark)))
    with pytest.raises(ValueError, match=r"wants to use \w+.system.*Do not trust this file"):
        retrieval_sfm.from_database(listed(["ims/a"]), path)
    assert not mark.exists()


@pytest.mark.parametrize("value", [{}, [1], {"train": {}}, {"train": database()["train"]}, "text"])
def test_what_is_no_database_is_said(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ValueError, match="it is not a retrieval-SfM database file"):
        retrieval_sfm.from_database(listed(["ims/a"]), stored(tmp_path, value))


def test_rows_say_what_the_database_says_and_no_more(tmp_path: Path) -> None:
    images, found = retrieval_sfm.from_database(
        listed([f"ims/{name}.jpg" for name in "zvuxfedcba"]), stored(tmp_path, database())
    )
    assert images.schema.equals(IMAGES_SCHEMA) and found.schema.equals(TUPLES_SCHEMA)
    assert images["image_id"].to_pylist() == [f"ims/{name}.jpg" for name in "abcdefuvxz"]
    rows = by_id(images)
    assert rows["ims/a.jpg"] == {
        "image_id": "ims/a.jpg",
        "cluster": 0,
        "model": -1,
        "split": "train",
        "status": "registered",
        "reason": None,
        "num_points": 0,
    }
    # Clusters are numbered apart in the two parts of the file, and here one after the other.
    assert [rows[f"ims/{name}.jpg"]["cluster"] for name in "adxuv"] == [0, 1, 2, 3, 3]
    assert rows["ims/z.jpg"] == {
        "image_id": "ims/z.jpg",
        "cluster": 4,
        "model": -1,
        "split": "train",
        "status": "unregistered",
        "reason": "not in the database",
        "num_points": 0,
    }
    assert found.to_pylist()[0] == {
        "query": "ims/a.jpg",
        "cluster": 0,
        "split": "train",
        "candidates": ["ims/b.jpg", "ims/c.jpg"],
        "shared_points": [0, 0],
        "scale_change": [1.0, 1.0],
    }
    assert found.to_pylist()[-1] == {
        "query": "ims/v.jpg",
        "cluster": 3,
        "split": "val",
        "candidates": ["ims/u.jpg"],
        "shared_points": [0],
        "scale_change": [1.0],
    }


def test_a_photo_is_known_by_its_file_s_name_with_or_without_the_ending(tmp_path: Path) -> None:
    value = database(cids=["a.jpg", "b", *"cdefx"])
    images, _ = retrieval_sfm.from_database(listed(["x/y/a.jpg", "z/b.png", *"cdefuv"]), stored(tmp_path, value))
    known = {row["image_id"] for row in images.to_pylist() if row["status"] == "registered"}
    assert {"x/y/a.jpg", "z/b.png"} <= known


def test_lists_of_different_lengths_are_no_database(tmp_path: Path) -> None:
    for changes in ({"cluster": [0, 0]}, {"qidxs": [0]}):
        with pytest.raises(ValueError):
            retrieval_sfm.from_database(
                listed([f"ims/{name}" for name in "abc"]), stored(tmp_path, database(**changes))
            )
