"""A part's books balance whatever the photographs are, and a part done again gives the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.artifacts.collection import IMAGE_SCHEMA, REJECTED_SCHEMA
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.data.catalog import plan_collection, write_catalog
from retrieval.data.ingestion import ingest_part
from retrieval.data.settings import SplitConfig
from retrieval.images.pixels import encode_jpeg, limit_threads
from retrieval.images.preparation import prepare
from retrieval.images.settings import PrepareConfig
from tests.support.photos import awkward, portrait

HAAR = PrepareConfig()
FIT = PrepareConfig(crop="fit", size=100)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    limit_threads(1)
    yield
    limit_threads(-1)


def planned(source: Path, out: Path, part_size: int | None = 5) -> dict[str, Any]:
    config = {"prepare": plain(HAAR), "part_size": part_size}
    return plan_collection(str(out), source=str(source), layout="auto", config=config, part_size=part_size)


def test_awkward_photographs_are_stored_or_rejected_with_their_reason(tmp_path: Path) -> None:
    expected = awkward(tmp_path / "photos")
    plan = planned(tmp_path / "photos", tmp_path / "out")
    assert (plan["parts"], plan["photos"], plan["sealed"]) == (3, 14, False)
    out, source = Folder.of(tmp_path / "out"), Folder(plan["root"])
    found: dict[str, str | None] = {}
    for part in range(plan["parts"]):
        result = ingest_part(out, part, source, HAAR)
        stored = out.read_table(f"images/part-{part:05}.parquet")
        rejected = out.read_table(f"rejected/part-{part:05}.parquet")
        assert stored.schema.equals(IMAGE_SCHEMA)
        assert rejected.schema.equals(REJECTED_SCHEMA)
        assert result.taken == stored.num_rows + rejected.num_rows == result.stored + sum(result.rejected.values())
        found |= dict.fromkeys(stored.column("image_id").to_pylist())
        found |= {row["image_id"]: row["reason"] for row in rejected.to_pylist()}
        assert all(row["detail"] and row["stage"] in ("read", "decode", "detect") for row in rejected.to_pylist())
    assert found == expected
    divided = write_catalog(out.uri, plan["parts"], SplitConfig())
    assert divided["dropped"] == {"duplicate": 1, "single-image identity": 1}
    catalog = out.read_table("catalog.parquet").to_pylist()
    assert [row["image_id"] for row in catalog] == sorted(name for name, reason in expected.items() if reason is None)
    for row in catalog:
        there = out.read_table(f"images/part-{row['part']:05}.parquet").column("image_id")[row["row"]].as_py()
        assert there == row["image_id"]
    (copy,) = [row for row in catalog if row["duplicate_of"]]
    assert (copy["image_id"], copy["duplicate_of"]) == ("ann/2 copy of 1.jpg", "ann/1.jpg")


def test_a_part_done_again_gives_the_same_bytes_and_a_done_one_is_kept(tmp_path: Path) -> None:
    awkward(tmp_path / "photos")
    plan = planned(tmp_path / "photos", tmp_path / "out")
    out, source = Folder.of(tmp_path / "out"), Folder(plan["root"])
    told: list[tuple[str, int, int]] = []
    first = ingest_part(out, 0, source, HAAR, lambda *word: told.append(word))
    assert told == [("photos", done, first.taken) for done in range(1, first.taken + 1)]  # those refused too
    again = ingest_part(out, 0, source, HAAR)
    assert (first.resumed, again.resumed, again.files) == (False, True, first.files)
    out.remove("rejected/part-00000.parquet")  # as if killed between the two
    redone = ingest_part(out, 0, source, HAAR)
    assert (redone.resumed, redone.files, redone.rejected) == (False, first.files, first.rejected)


def test_a_photo_gone_after_planning_is_rejected_as_missing(tmp_path: Path) -> None:
    awkward(tmp_path / "photos")
    plan = planned(tmp_path / "photos", tmp_path / "out", None)
    (tmp_path / "photos" / "ann" / "1.jpg").unlink()
    result = ingest_part(Folder.of(tmp_path / "out"), 0, Folder(plan["root"]), HAAR)
    assert result.rejected["missing"] == 2


def test_books_of_whole_photos_balance(tmp_path: Path) -> None:
    """A photo of 3 pixels is refused with its reason, a black one is stored; a copy and a single are told apart."""
    photos, out = tmp_path / "photos", Folder.of(tmp_path / "out")
    photos.mkdir()
    files = {"a.jpg": encode_jpeg(portrait(0)), "black.jpg": encode_jpeg(np.zeros((90, 160, 3), np.uint8))}
    files |= {"copy of a.jpg": files["a.jpg"], "dot.png": encode_jpeg(np.zeros((3, 3, 3), np.uint8))}
    files |= {"broken.jpg": files["a.jpg"][:300]}
    for name, data in files.items():
        (photos / name).write_bytes(data)
    config = {"prepare": plain(FIT), "part_size": None}
    plan = plan_collection(out.uri, source=str(photos), layout="auto", config=config, part_size=None)
    result = ingest_part(out, 0, Folder(plan["root"]), FIT)
    assert (result.taken, result.stored, sum(result.rejected.values())) == (5, 3, 2)
    assert result.rejected["too-small"] == 1
    rows = out.read_table("images/part-00000.parquet").to_pylist()
    assert {row["image_id"]: (row["height"], row["width"]) for row in rows} == {
        "a.jpg": (100, 82),
        "black.jpg": (56, 100),
        "copy of a.jpg": (100, 82),
    }
    divided = write_catalog(out.uri, 1, SplitConfig(keep_singles=True))
    assert divided["dropped"] == {"duplicate": 1}
    assert (divided["counts"]["train"], divided["counts"]["dropped"]) == (2, 1)
    tolerant = PrepareConfig(crop="fit", size=100, min_side=1)
    dot = prepare(files["dot.png"], tolerant, None)
    assert (dot.width, dot.height) == (3, 3)
