"""What somebody said of people, said again in order."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from retrieval.live.people import SPLIT_FROM, Members, People, apply_edits

GROUPED = np.array([1, 1, 2, 2, -1, 3], dtype=np.int32)
ROWS = {f"p{row}": row for row in range(len(GROUPED))}


def said(*edits: dict) -> list[dict]:
    return [{**edit, "seq": seq, "at": 0} for seq, edit in enumerate(edits, 1)]


def test_edits_are_said_in_their_order() -> None:
    found = apply_edits(
        GROUPED,
        said(
            {"kind": "name", "person": 2, "name": "Bob"},
            {"kind": "split", "person": 2, "image_ids": ["p3", "p4", "live"]},
            {"kind": "merge", "person": 2, "into": 1},
            {"kind": "merge", "person": SPLIT_FROM + 2, "into": 3},
            {"kind": "split", "person": 1, "image_ids": ["p0"], "new": SPLIT_FROM + 77},
            {"kind": "name", "person": 3, "name": "Cleo"},
            {"kind": "name", "person": 3, "name": None},
        ),
        ROWS.get,
    )
    assert found.person.tolist() == [SPLIT_FROM + 77, 1, 1, 3, 3, 3]
    assert (found.live, found.names) == ({"live": 3}, {1: "Bob"})
    assert GROUPED.tolist() == [1, 1, 2, 2, -1, 3]


def test_a_name_of_its_own_is_kept_when_another_comes_in() -> None:
    edits = said(
        {"kind": "name", "person": 1, "name": "Ada"},
        {"kind": "name", "person": 2, "name": "Bob"},
        {"kind": "merge", "person": 2, "into": 1},
    )
    assert apply_edits(GROUPED, edits, ROWS.get).names == {1: "Ada"}


def test_nothing_said_is_as_they_were_grouped() -> None:
    found = apply_edits(GROUPED, [], ROWS.get)
    assert found.person is GROUPED and not found.live and not found.names


def test_members_are_counted_and_listed() -> None:
    person = np.array([2, 1, -1, 2, 7, 1, 2], dtype=np.int32)
    ids = pa.array([f"p{row}" for row in range(len(person))])
    found = Members(ids, People(person, {"p2x": 2, "q": 9, "a": 2}, {}))
    assert found.largest_first() == [(5, 2), (2, 1), (1, 7), (1, 9)]
    assert len(found) == 4
    assert found.first(2, 10) == ["a", "p0", "p2x", "p3", "p6"]
    assert found.first(2, 2) == ["a", "p0"]
    assert found.first(9, 4) == ["q"]
    assert [found.count(one) for one in (1, 2, 3, -1)] == [2, 5, 0, 0]
    assert 9 in found and 7 in found and 3 not in found and -1 not in found
    assert found.first(3, 4) == []


def test_nobody_has_no_members() -> None:
    found = Members(pa.array(["a"]), People(np.array([-1], dtype=np.int32), {}, {}))
    assert len(found) == 0 and found.largest_first() == []


def test_nobody_is_on_an_image_that_is_gone() -> None:
    people = People(GROUPED, {"q": 1, "r": 3}, {1: "Ada"})
    found = people.of_those_there(np.array([0, 5]), {"r"})
    assert found.person.tolist() == [-1, 1, 2, 2, -1, -1]
    assert (found.live, found.names) == ({"r": 3}, {1: "Ada"})
    assert people.person[0] == 1
    assert people.of_those_there(np.array([], dtype=np.int64), {"q", "r"}).person is GROUPED
