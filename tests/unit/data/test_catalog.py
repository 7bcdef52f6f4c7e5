"""The plan of a collection is made once and refuses another source; the catalogue divides what was stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retrieval.artifacts.hashing import plain
from retrieval.data.catalog import plan_collection, source_fingerprint
from retrieval.images.settings import PrepareConfig
from tests.support.photos import awkward

HAAR = PrepareConfig()


def planned(source: Path, out: Path, part_size: int | None = 5) -> dict[str, Any]:
    config = {"prepare": plain(HAAR), "part_size": part_size}
    return plan_collection(str(out), source=str(source), layout="auto", config=config, part_size=part_size)


def test_the_plan_is_read_back_and_a_changed_source_refused(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    awkward(photos)
    plan = planned(photos, tmp_path / "out")
    assert planned(photos, tmp_path / "out") == plan
    (photos / "ann" / "new.jpg").write_bytes(b"x")
    (photos / "cy" / "only.jpg").unlink()
    (photos / "ann" / "1.jpg").write_bytes(b"other")
    with pytest.raises(
        ValueError, match=r"inputs.source.*1 new \(first: ann/new.jpg\); 1 gone .*only.jpg\); 1 changed"
    ):
        planned(photos, tmp_path / "out")


def test_fingerprint_names_content_not_place(tmp_path: Path) -> None:
    for place in ("here", "there"):
        awkward(tmp_path / place)
    assert source_fingerprint(str(tmp_path / "here")) == source_fingerprint(str(tmp_path / "there"))
    assert source_fingerprint(str(tmp_path / "here"), "folder") != source_fingerprint(str(tmp_path / "here"))


@pytest.mark.parametrize(("photos", "parts"), [(1, 1), (16, 1), (17, 2), (256, 16), (4096, 16), (4097, 17)])
def test_number_of_parts_follows_the_number_of_photos(tmp_path: Path, photos: int, parts: int) -> None:
    table = tmp_path / "photos.csv"
    (tmp_path / "0.jpg").write_bytes(b"x")
    table.write_text("path\n" + "".join(f"{number}.jpg\n" for number in range(photos)))
    assert planned(table, tmp_path / "out", None)["parts"] == parts


@pytest.mark.parametrize("where", ["below a file", "/proc/no-folder-can-be-made-here"])
def test_an_unwritable_place_is_refused_in_words(tmp_path: Path, where: str) -> None:
    """Both fail for root too, for whom permission bits count for nothing."""
    awkward(tmp_path / "photos")
    (tmp_path / "file").write_bytes(b"")
    out = tmp_path / "file" / "out" if where == "below a file" else Path(where)
    with pytest.raises(ValueError, match=r"Cannot write to .*Name a folder that can be made"):
        planned(tmp_path / "photos", out)
