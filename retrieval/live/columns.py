"""What filters ask of a sealed gallery, a row an image, in arrays that are mapped from disk.

Names are codes into a list of the different ones; image_ids are sorted, so that a folder is a range of rows. What a
million take: docs/decisions/filters-inside-the-index.md.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.artifacts.node.rows import NEVER, Rows, place_of
from retrieval.data.layouts.celeba import ATTRIBUTES
from retrieval.live.filters import Filter

_KEPT = 64
"""Filters whose rows are kept: an eighth of a byte a row and filter."""


@dataclass(frozen=True, slots=True)
class Coded:
    """Names by row. codes: (N,) int32 into `names`, -1 for none. names: the different ones."""

    codes: np.ndarray
    names: pa.LargeStringArray

    def name(self, row: int) -> str | None:
        code = int(self.codes[row])
        return None if code < 0 else self.names[code].as_py()

    def num_with(self, others: Collection[str | None]) -> int:
        """How many different names there are, these among them."""
        more = pa.array(list(others), self.names.type)
        return len(self.names) + len(more) - pc.is_in(more, self.names).true_count

    def is_any(self, wanted: Sequence[str]) -> np.ndarray:
        """(N,) bool: which rows have one of these names."""
        table = np.zeros(len(self.names) + 1, dtype=bool)  # the last is that of code -1
        table[:-1] = pc.is_in(self.names, pa.array(wanted, pa.large_string())).to_numpy(zero_copy_only=False)
        return table[self.codes]


class Columns:
    """Read once, then never changed.

    ids: sorted, as `str`s of an Arrow array. label, split: names by row. person: (N,) int32, -1 for none. face: (N,)
    int32, -1 where a photo is one row. attributes: (N, A) int8, 0 where nobody said; None where nobody said anything.
    attribute_names: A of them. added: (N,) int64, microseconds since 1970; the least there is for what was not added.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.ids, self.person, self.face, self.added = rows.ids, rows.person, rows.face, rows.added
        self.label, self.split = Coded(rows.label, rows.labels), Coded(rows.split, rows.splits)
        self.attributes = rows.attributes
        width = 0 if self.attributes is None else self.attributes.shape[1]
        self.attribute_names = ATTRIBUTES if width == len(ATTRIBUTES) else tuple(map(str, range(width)))

    def __len__(self) -> int:
        return len(self.ids)

    def row_of(self, image_id: str) -> int | None:
        place = self._place(image_id)
        return place if place < len(self) and self.ids[place].as_py() == image_id else None

    def added_at(self, row: int) -> datetime | None:
        """When an image was added to a running service; None for what was not."""
        value = int(self.added[row])
        return None if value == NEVER else datetime.fromtimestamp(value / 1e6, UTC)

    def attributes_of(self, row: int) -> dict[str, int] | None:
        """By name; None where nothing is known of the image."""
        if self.attributes is None or not self.attributes[row].any():
            return None
        return dict(zip(self.attribute_names, self.attributes[row].tolist(), strict=True))

    def allowed(self, wanted: Filter, person: np.ndarray) -> np.ndarray:
        """(N,) bool: which rows pass. Args: person: (N,) int32, as they are named now."""
        keeps = [
            column.is_any(names)
            for column, names in ((self.label, wanted.label), (self.split, wanted.split))
            if names is not None
        ]
        if wanted.person is not None:
            keeps.append(np.isin(person, np.array([one for one in wanted.person if one >= 0], dtype=np.int32)))
        keeps += [self._attribute(name, value) for name, value in wanted.attributes or ()]
        if wanted.added_after is not None:
            keeps.append((self.added >= _microseconds(wanted.added_after)) & (self.added != NEVER))
        if wanted.added_before is not None:
            keeps.append((self.added < _microseconds(wanted.added_before)) & (self.added != NEVER))
        if wanted.folders is not None:
            keeps.append(self._in_any(wanted.folders))
        if wanted.image_id is not None:
            rows = [row for row in map(self.row_of, wanted.image_id) if row is not None]
            keeps.append(np.isin(np.arange(len(self)), rows))
        return functools.reduce(np.logical_and, keeps, np.ones(len(self), dtype=bool))

    def _attribute(self, name: str, value: int) -> np.ndarray:
        if self.attributes is None or name not in self.attribute_names:
            return np.full(len(self), value == 0)
        return self.attributes[:, self.attribute_names.index(name)] == value

    def _in_any(self, starts: Sequence[str]) -> np.ndarray:
        inside = np.zeros(len(self), dtype=bool)
        for start in starts:
            rows = self.rows_that_begin(start) if start else range(len(self))
            inside[rows.start : rows.stop] = True
        return inside

    def place_after(self, image_id: str) -> int:
        """The first row whose id is greater."""
        place = self._place(image_id)
        return place + (place < len(self) and self.ids[place].as_py() == image_id)

    def rows_that_begin(self, start: str) -> range:
        """The rows whose ids begin with `start`, which is not empty and ends in an ASCII character."""
        return range(self._place(start), self._place(start[:-1] + chr(ord(start[-1]) + 1)))

    def _place(self, image_id: str) -> int:
        """Where an id stands, or would stand."""
        return place_of(self.ids, image_id)


class Masks:
    """Which rows pass which filter, kept for the filters that were asked last: a bit a row.

    What asks for people is kept for as long as everybody is who they are, and then all of it is let go: each moment has
    an array of its own, as long as the gallery.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._fixed = self._keeping(columns.person)
        self._moving = columns.person, self._fixed

    def of(self, wanted: Filter, person: np.ndarray) -> np.ndarray:
        """(N,) bool, the caller's own. Args: person: (N,) int32, as they are named now."""
        if wanted.person is None:
            kept = self._fixed
        else:
            known, kept = self._moving
            if known is not person:
                kept = self._keeping(person)
                self._moving = person, kept
        return np.unpackbits(kept(wanted), count=len(self._columns)).view(bool)

    def _keeping(self, person: np.ndarray) -> Callable[[Filter], np.ndarray]:
        return functools.lru_cache(_KEPT)(lambda wanted: np.packbits(self._columns.allowed(wanted, person)))


def _microseconds(time: datetime) -> int:
    return round(time.timestamp() * 1e6)
