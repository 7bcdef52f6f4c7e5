"""The page of groups: whom it draws, in which order, and what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from retrieval.artifacts.folder import Folder
from retrieval.images.pixels import decode_whole
from retrieval.reports import people as report
from tests.support.grouped import make_folders, people

COUNTS = {"people": 2, "grouped": 7, "num": 9, "single": 2, "unembedded": 0, "largest": 4, "bcubed_precision": 0.5}


def tables(ids: list[str]) -> tuple[pa.Table, pa.Table]:
    numbers, scores = [3, 3, 3, 3, 8, 8, 8, None, None], [0.9, 0.6, 0.8, 0.7, 0.5, 0.4, 0.3, None, None]
    grouped = pa.table({"image_id": ids, "person": pa.array(numbers, pa.int32()), "score": pa.array(scores)})
    twice = {"image_id": [ids[1], ids[8]], "duplicate_of": [ids[0], ids[7]], "how": ["same picture", "same file"]}
    return grouped, pa.table(twice | {"likeness": [0.98, 1.0]})


def test_a_page_with_its_sheets(tmp_path: Path) -> None:
    photos, out = people(3, 3), Folder.of(tmp_path / "out")
    where = make_folders(tmp_path, photos)
    report.write_page(out, where["collection"], *tables(sorted(one.image_id for one in photos)), COUNTS, {"group": "x"})
    assert list(out.list()) == ["duplicates.jpg", "largest.jpg", "least-sure.jpg", "people.html"]
    text = out.read_bytes(report.PAGE).decode()
    assert "2 groups in 7 of 9 photos" in text
    assert "BCubed precision, by the labels" in text and "0.5000" in text
    assert "http" not in text.replace("http-equiv", "")
    assert decode_whole(out.read_bytes("largest.jpg")).std() > 20
    assert text.index("The largest groups") < text.index("What was found"), "faces are what one looks for"


def test_what_became_of_earlier_groups_is_told_only_where_there_were_any() -> None:
    new = dict.fromkeys(("kept", "split", "merged", "gone"), 0) | {"new": 2}
    assert [row[0] for row in report._figures(COUNTS | new).rows] == [row[0] for row in report._figures(COUNTS).rows]
    again = {row[0]: row[1] for row in report._figures(COUNTS | new | {"gone": 1}).rows}
    assert (again["groups with a new number"], again["numbers that nobody bears any more"]) == ("2", "1")


def test_nothing_found_is_a_page_too(tmp_path: Path) -> None:
    photos, out = people(1, 2), Folder.of(tmp_path / "out")
    where = make_folders(tmp_path, photos)
    grouped, twice = tables([str(n) for n in range(9)])
    counts = {"people": 0, "grouped": 0, "num": 2, "single": 2}
    report.write_page(out, where["collection"], grouped.slice(7), twice.slice(0, 0), counts, {})
    assert list(out.list()) == ["people.html"]


def test_members_come_from_the_most_typical_to_the_least(tmp_path: Path) -> None:
    photos = people(3, 3)
    where = make_folders(tmp_path, photos)
    ids = sorted(one.image_id for one in photos)
    members = report._Members(tables(ids)[0].slice(0, 7))
    assert [name for name, _ in members.some(3)] == [ids[0], ids[2], ids[3], ids[1]]
    (line,) = report._lines(where["collection"], members, [8], "place")
    assert (line.name, line.said) == ("place 8", "3 photos")
    assert [said for _, said in line.photos] == [f"0.50  {ids[4]}", f"0.40  {ids[5]}", f"0.30  {ids[6]}"]


def test_groups_come_by_size_and_by_their_least_typical_photo_and_equal_ones_by_number() -> None:
    numbers, scores = [9, 4, 9, 4, 2, 2, 2, 7, 7], [0.9, 0.6, 0.5, 0.8, 0.7, 0.6, 0.9, 0.5, 0.8]
    columns = {"image_id": [str(n) for n in range(9)], "person": pa.array(numbers, pa.int32()), "score": scores}
    members = report._Members(pa.table(columns))
    assert members.largest() == [2, 4, 7, 9]
    assert members.unsure() == [7, 9, 2, 4]
    assert [members.size(number) for number in (2, 9)] == [3, 2]


def test_of_many_photos_the_first_and_the_last_are_drawn() -> None:
    drawn = report._spread(57)
    assert len(drawn) == 10 and drawn[0] == 0 and drawn[-1] == 56
    assert np.diff(drawn).min() >= 6
    assert report._spread(3).tolist() == [0, 1, 2]


def test_copies_that_are_none_byte_for_byte_come_first(tmp_path: Path) -> None:
    photos = people(3, 3)
    where, ids = make_folders(tmp_path, photos), sorted(one.image_id for one in photos)
    lines = report._pairs(where["collection"], tables(ids)[1])
    assert [line.said for line in lines] == ["same picture", "same file"]
    assert [said for _, said in lines[0].photos] == [ids[0], f"0.980  {ids[1]}"]
