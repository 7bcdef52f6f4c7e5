"""People as somebody put them right: merged, named, split. What was said is kept, and said again of every new grouping.

The numbers of groups go on from one grouping to the next, so what is said of a number stays said. A group that was
split off has a number that no grouping gives: `SPLIT_FROM` and the number of the change.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

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

    def of_those_there(self, hidden: np.ndarray, live: Container[str]) -> People:
        """Nobody is on an image that is gone. Args: hidden: rows that are. live: those added that are not."""
        person = self.person
        if len(hidden):
            person = person.copy()
            person[hidden] = -1
        return People(person, {name: number for name, number in self.live.items() if name in live}, self.names)


class Members:
    """Of every person, which images they are on; of one moment."""

    def __init__(self, ids: pa.LargeStringArray, people: People) -> None:
        """Args: ids: (N,) of the sealed rows, sorted. people: of those that are there."""
        self._ids, person, live = ids, people.person, people.live
        self._order = np.argsort(person, kind="stable")
        found, starts, counts = np.unique(person[self._order], return_index=True, return_counts=True)
        places = zip(found.tolist(), starts.tolist(), counts.tolist(), strict=True)
        self._place = {number: (start, count) for number, start, count in places if number >= 0}
        self._live: dict[int, list[str]] = {}
        for image_id, number in sorted(live.items()):
            self._live.setdefault(number, []).append(image_id)

    def __len__(self) -> int:
        return len({*self._place, *self._live})

    def __contains__(self, number: object) -> bool:
        return number in self._place or number in self._live

    def count(self, number: int) -> int:
        """Images; 0 for nobody."""
        return self._place.get(number, (0, 0))[1] + len(self._live.get(number, ()))

    def first(self, number: int, num: int) -> list[str]:
        """The first images by image_id, `num` at most."""
        start, count = self._place.get(number, (0, 0))
        sealed = self._ids.take(pa.array(self._order[start : start + min(count, num)])).to_pylist()
        return sorted([*sealed, *self._live.get(number, ())[:num]])[:num]

    def largest_first(self) -> list[tuple[int, int]]:
        """(number of images, person) of everybody, those of most first, then by number."""
        everybody = {*self._place, *self._live}
        return sorted(((self.count(one), one) for one in everybody), key=lambda pair: (-pair[0], pair[1]))


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
