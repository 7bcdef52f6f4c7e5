"""Photos and files of a source in order of their names, however many: on this machine's disk, and mapped.

A source is read once, in whatever order its storage has; what is read is sorted by `artifacts.node.scratch`.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa

from retrieval.artifacts.node.scratch import Scratch
from retrieval.data.source import MAX_NOTES, Listing, Photo

LISTED = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("attributes", pa.list_(pa.int8())),
        ("box", pa.list_(pa.float64())),
    ]
)
"""A row a photo, as `source.Photo`."""

_NUMBERED = LISTED.append(pa.field("seq", pa.int64()))
_FILES = pa.schema([("path", pa.string()), ("size", pa.int64())])
_AT_ONCE = 1 << 14  # rows


class Photos(Sequence[Photo]):
    """Photos sorted by image_id. table: the same, as LISTED."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, row: int) -> Photo: ...
    @overload
    def __getitem__(self, row: slice) -> list[Photo]: ...
    def __getitem__(self, row: int | slice) -> Photo | list[Photo]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(f"Row {row} is not one of {len(self)} photos.")
        return next(iter(Photos(self.table.slice(row % len(self), 1))))

    def __iter__(self) -> Iterator[Photo]:
        return (Photo(**dict(zip(LISTED.names, values, strict=True))) for values in self.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Photos) and self.table.equals(other.table)

    __hash__ = None  # type: ignore[assignment]

    def values(self) -> Iterator[tuple[Any, ...]]:
        """Of each photo what LISTED names, lists as tuples."""
        for batch in self.table.to_batches(max_chunksize=_AT_ONCE):
            *plain, attributes, box = (column.to_pylist() for column in batch.columns)
            lists = ([None if one is None else tuple(one) for one in column] for column in (attributes, box))
            yield from zip(*plain, *lists, strict=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """How many of the photos are somehow; `folders` and `labels`: different ones."""

    folders: int
    missing: int
    labels: int
    unlabelled: int
    without_attributes: int
    without_box: int


def sort_photos(photos: Iterable[Photo], found: Listing) -> tuple[Photos, Counted]:
    """Each image_id once, as it was first listed; repetitions are counted in `found`.

    Raises: ValueError if two photos have one name.
    """
    with Scratch() as tables:
        tables.add("listed", _NUMBERED, _batches(photos))
        tables.run(
            """
            CREATE TABLE twice AS
                SELECT image_id, min(seq) AS first FROM listed GROUP BY image_id HAVING count(*) > 1
            """
        )
        _note_repeated(tables, found)
        tables.run(
            """
            CREATE VIEW once AS
                SELECT l.* FROM listed l LEFT JOIN twice USING (image_id) WHERE first IS NULL OR seq = first
            """
        )
        counted = dict(zip(Counted.__dataclass_fields__, tables.one(_COUNT), strict=True))
        names = ", ".join(LISTED.names)
        return Photos(tables.map(f"SELECT {names} FROM once ORDER BY image_id", LISTED)), Counted(**counted)


_FOLDER = "left(image_id, length(image_id) - strpos(reverse(image_id), '/') + 1)"
"""With what is behind it: its slashes are taken off, unless there is nothing else."""

_COUNT = f"""
    SELECT
        (SELECT count(*) FROM (
            SELECT DISTINCT
                CASE WHEN NOT contains(image_id, '/') THEN ''
                WHEN rtrim({_FOLDER}, '/') = '' THEN {_FOLDER} ELSE rtrim({_FOLDER}, '/') END
            FROM once)),
        (SELECT count(*) FROM once WHERE size < 0),
        (SELECT count(*) FROM (SELECT DISTINCT label FROM once WHERE label IS NOT NULL)),
        (SELECT count(*) FROM once WHERE label IS NULL),
        (SELECT count(*) FROM once WHERE attributes IS NULL),
        (SELECT count(*) FROM once WHERE box IS NULL)
"""


def _note_repeated(tables: Scratch, found: Listing) -> None:
    tables.run(
        """
        CREATE TABLE again AS
            SELECT l.seq, l.image_id, l.uri, l.label, f.uri AS first_uri, f.label AS first_label
            FROM listed l JOIN twice t USING (image_id) JOIN listed f ON f.seq = t.first WHERE l.seq <> t.first
        """
    )
    if other := tables.rows("SELECT image_id, first_uri, uri FROM again WHERE uri <> first_uri ORDER BY seq LIMIT 1"):
        image_id, first, second = other[0]
        raise ValueError(
            f"Two photos are called '{image_id}': {first} and {second}. "
            f"Give the manifest a column image_id with different names."
        )
    (num,) = tables.one("SELECT count(*) FROM again")
    found.repeated += num
    differ = "SELECT image_id, first_label FROM again WHERE label IS DISTINCT FROM first_label"
    found.notes += [
        f"{image_id} is listed with two labels; the first, {label}, is kept."
        for image_id, label in tables.rows(f"{differ} ORDER BY seq LIMIT {MAX_NOTES}")
    ]


def _batches(photos: Iterable[Photo]) -> Iterator[pa.RecordBatch]:
    start, rest = 0, iter(photos)
    while some := list(itertools.islice(rest, _AT_ONCE)):
        columns = [pa.array([getattr(one, field.name) for one in some], field.type) for field in LISTED]
        numbers = pa.array(np.arange(start, start + len(some)))
        yield pa.record_batch([*columns, numbers], schema=_NUMBERED)
        start += len(some)


class Files(Mapping[str, int]):
    """Relative paths and sizes in bytes of all files of a source, sorted; -1 for a link to nothing."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[str]:
        return (path for path, _ in self._pairs())

    def __getitem__(self, path: str) -> int:
        paths = self._table["path"]
        row = bisect.bisect_left(range(len(self)), path, key=lambda row: paths[row].as_py())
        if row == len(self) or paths[row].as_py() != path:
            raise KeyError(path)
        return self._table["size"][row].as_py()

    def items(self) -> Any:
        """Pairs, read as they are asked for."""
        return self._pairs()

    def _pairs(self) -> Iterator[tuple[str, int]]:
        for batch in self._table.to_batches(max_chunksize=_AT_ONCE):
            yield from zip(batch["path"].to_pylist(), batch["size"].to_pylist(), strict=True)


def sort_files(files: Iterable[tuple[str, int]]) -> Files:
    """Args: files: paths that are UTF-8, and sizes."""

    def batches() -> Iterator[pa.RecordBatch]:
        rest = iter(files)
        while some := list(itertools.islice(rest, _AT_ONCE)):
            yield pa.record_batch(list(zip(*some, strict=True)), schema=_FILES)

    with Scratch() as tables:
        tables.add("files", _FILES, batches())
        return Files(tables.map("SELECT * FROM files ORDER BY path", _FILES))
