"""People as somebody put them right: merged, named, split. What was said is kept, and said again of every new grouping.

The numbers of groups go on from one grouping to the next, so what is said of a number stays said. A group that was
split off has a number that no grouping gives: `SPLIT_FROM` and the number of the change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SPLIT_FROM = 1_000_000_000

MERGE, NAME, SPLIT = "merge", "name", "split"
"""What `Store.edit_people` is given with each: person and into; person and name (or null); person, image_ids and new,
their number (where it is not said, `SPLIT_FROM` and the number of the change)."""


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """Who is who now. person: (N,) int32 by row, -1 for none. live: image_id -> number, of those that have one.
    names: of numbers that were named."""

    person: np.ndarray
    live: Mapping[str, int]
    names: Mapping[int, str]


def apply_edits(grouped: np.ndarray, edits: Sequence[Mapping[str, Any]], row_of: Callable[[str], int | None]) -> People:
    """Say every edit again, oldest first.

    Args: grouped: (N,) int32, as they were grouped. row_of: the row of a sealed image, None for a live one.
    """
    person, live, names = grouped, dict[str, int](), dict[int, str]()
    for edit in edits:
        kind, of = edit["kind"], int(edit["person"])
        if kind == NAME:
            names.pop(of, None)
            if edit["name"]:
                names[of] = edit["name"]
        elif kind == MERGE:
            into = int(edit["into"])
            person = np.where(person == of, np.int32(into), person)
            live = {image_id: into if number == of else number for image_id, number in live.items()}
            if of in names:
                names.setdefault(into, names[of])
                del names[of]
        elif kind == SPLIT:
            person, number = person.copy(), int(edit.get("new") or SPLIT_FROM + int(edit["seq"]))
            for image_id in edit["image_ids"]:
                row = row_of(image_id)
                if row is None:
                    live[image_id] = number
                else:
                    person[row] = number
    return People(person, live, names)
