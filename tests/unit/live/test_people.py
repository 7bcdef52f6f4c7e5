"""What somebody said of people, said again in order."""

from __future__ import annotations

import numpy as np

from retrieval.live.people import SPLIT_FROM, apply_edits

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
