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
