"""Links between photos that are alike: each with its nearest, found by the index, a part of the embeddings at a time.

Each part is one file of links, published whole, and one that has its done-marker is done. What is held of the
collection is the index and, of one part, its vectors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from retrieval.artifacts.embeddings import read_rows
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.progress import Progress, silent
from retrieval.grouping.merging import distinct, split_keys
from retrieval.search.index import Searcher
from retrieval.search.ranking import Neighbours

LINK_SCHEMA = pa.schema(
    [
        ("row", pa.int32()),  # of the index, ascending
        ("neighbour", pa.int32()),  # another row, nearest first
        ("score", pa.float32()),  # inner product, as the index has it
    ]
)
_BLOCK = 1024  # queries at once


@dataclass(frozen=True, slots=True)
class Links:
    """Pairs of rows that are alike, each once, in order. low, high: (E,) int32, low < high."""

    low: np.ndarray
    high: np.ndarray

    def __len__(self) -> int:
        return len(self.low)


def links_name(part: int) -> str:
    """The file of a part's links, in the folder of the groups."""
    return f"links/{part_name(part)}"


class LinkFinder:
    """Finds and writes the links of one part after another: an opened index, and where to read and write."""

    def __init__(self, index: Folder, embeddings: Folder, out: Folder, neighbours: int, threshold: float) -> None:
        """Args: neighbours: of each photo, at most. threshold: the least inner product of a link."""
        self._searcher, self._embeddings, self._out = Searcher.open(index), embeddings, out
        self._neighbours, self._threshold = neighbours, threshold
        self._by_part = np.argsort(self._searcher.parts, kind="stable").astype(np.int32)
        self._parts = self._searcher.parts[self._by_part]

    def __call__(self, part: int, progress: Progress = silent) -> dict[str, str | int]:
        """Write the links of the indexed photos of embedding part `part`.

        Returns: {"name", "sha256", "taken": indexed photos of the part, "links"}.

        Raises: ValueError if the embeddings are not those of the index.
        """
        name = links_name(part)
        if (done := self._out.done(name)) is None:
            rows = self._by_part[slice(*np.searchsorted(self._parts, [part, part + 1]))].astype(np.int64)
            links = self._find(rows, progress)
            done = self._out.write_table(name, links, about={"taken": len(rows), "links": len(links)})
        return {"name": name, "sha256": done.sha256, **done.about}

    def _find(self, rows: np.ndarray, progress: Progress) -> pa.Table:
        of = self._searcher
        vectors = read_rows(self._embeddings, of.ids[rows], of.parts[rows], of.rows_in_part[rows], of.dim)
        tables = [LINK_SCHEMA.empty_table()]
        for start in range(0, len(rows), _BLOCK):
            mine = rows[start : start + _BLOCK]
            found = of.search(vectors[start : start + _BLOCK], self._neighbours, exclude_rows=mine)
            tables.append(as_table(mine, found, self._threshold))
            progress("links", start + len(mine), len(rows))
        return pa.concat_tables(tables).combine_chunks()


def as_table(rows: np.ndarray, found: Neighbours, threshold: float) -> pa.Table:
    """What a search found for the photos `rows` (n,), as links: those of at least `threshold`, nearest first."""
    near = (found.rows >= 0) & (found.scores >= threshold)
    own = np.broadcast_to(rows[:, None], found.rows.shape)[near].astype(np.int32)
    columns = {"row": own, "neighbour": found.rows[near].astype(np.int32), "score": found.scores[near]}
    return pa.table(columns, schema=LINK_SCHEMA)


def read_links(out: Folder, names: Iterable[str], num_rows: int, nearest: int | None = None) -> Links:
    """All links, whoever of the two found the other, each once.

    Args:
        names: the files of links, in any order.
        num_rows: photos in the index.
        nearest: only those with so many of the nearest of a photo; None: all.
    """
    keys = list[np.ndarray]()
    for name in names:
        table = out.read_table(name, columns=["row", "neighbour"])
        row, other = (table[column].to_numpy().astype(np.int64) for column in ("row", "neighbour"))
        if nearest is not None:
            begins = np.searchsorted(row, row, side="left")
            close = np.arange(len(row)) - begins < nearest
            row, other = row[close], other[close]
        keys.append(distinct(np.minimum(row, other) * num_rows + np.maximum(row, other)))
    return Links(*split_keys(distinct(_joined(keys)), num_rows))


def _joined(keys: list[np.ndarray]) -> np.ndarray:
    """All of them in one, in any order; the list is emptied on the way, so that they are there once."""
    out, end = np.empty(sum(map(len, keys)), dtype=np.int64), 0
    while keys:
        some = keys.pop()
        out[end : end + len(some)] = some
        end += len(some)
    return out
