"""What one task takes in: some embeddings of a gallery, or one shard of an index of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from retrieval.artifacts.embeddings import read_rows
from retrieval.artifacts.folder import Folder
from retrieval.evaluation.pieces.images import Images
from retrieval.evaluation.pieces.ranks import count_before, scores_of
from retrieval.search.blocks import Blocks
from retrieval.search.engines.faiss_factory import Flat
from retrieval.search.index import Shard
from retrieval.search.ranking import Neighbours

SLICE = 64 << 20
"""Bytes of embeddings that a task holds, beside a copy to search and a tile of scores."""

TIMED = 256
"""Queries that say what a search takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """Vectors in memory. rows: (n,) int64, ascending, in the gallery. vectors: (n, D) float32."""

    rows: np.ndarray
    vectors: np.ndarray

    def load(self) -> np.ndarray:
        return self.vectors

    def open(self) -> Shard:
        return _exact(self.vectors, self.rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Embeddings on storage. rows: (n,) int64, ascending, in the gallery; ids, parts, places: of each, as `Images`."""

    embeddings: Folder
    rows: np.ndarray
    ids: pa.ChunkedArray
    parts: np.ndarray
    places: np.ndarray

    def load(self) -> np.ndarray:
        """(n, D) float32. Raises: ValueError if other images lie there."""
        return read_rows(self.embeddings, self.ids, self.parts, self.places)

    def open(self) -> Shard:
        return _exact(self.load(), self.rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardFile:
    """A shard of an index."""

    index: Folder
    name: str

    def open(self) -> Shard:
        return Shard.load(self.index, self.name)


def cuts_of(gallery: Images, dim: int) -> list[np.ndarray]:
    """Rows of the gallery, (n,) int64 ascending each: what lies in neighbouring parts, as much as a task holds."""
    step = max(1, SLICE // (4 * dim))
    order = np.lexsort((gallery.rows, gallery.parts))
    return [np.sort(order[start : start + step]) for start in range(0, len(order), step)]


def slice_of(embeddings: Folder, gallery: Images, rows: np.ndarray) -> Slice:
    """What a task is told of these rows of the gallery."""
    some = gallery.take(rows)
    return Slice(embeddings=embeddings, rows=rows, ids=some.ids, parts=some.parts, places=some.rows)


def score_pairs(
    piece: Held | Slice, queries: np.ndarray, query: np.ndarray, row: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of pairs of a query and a gallery row (P,), those whose row is of this piece, (p,) int64, and their scores."""
    at = np.minimum(np.searchsorted(piece.rows, row), len(piece.rows) - 1)
    here = np.flatnonzero(piece.rows[at] == row)
    if not len(here):
        return here, np.empty(0, np.float32)
    return here, scores_of(queries, piece.load(), query[here], at[here])


def count_and_find(
    piece: Held | Slice,
    queries: np.ndarray,
    exclude: np.ndarray,
    query: np.ndarray,
    score: np.ndarray,
    row: np.ndarray,
    near: int,
) -> tuple[np.ndarray, Neighbours]:
    """`count_before` of this piece, and the `near` nearest of each query, itself among them."""
    vectors = piece.load()
    counts = count_before(queries, vectors, piece.rows, exclude, query, score, row)
    return counts, _exact(vectors, piece.rows).search(queries, near)


def search_piece(
    piece: Held | Slice | ShardFile, queries: np.ndarray, ks: Sequence[int]
) -> tuple[Neighbours, dict[int, float]]:
    """The best of each query for the last of `ks`, and the seconds that the search took, or would take, for each of
    them: all but the last, of which nothing is needed, are timed with `TIMED` of the queries, in proportion."""
    shard, seconds, few = piece.open(), {}, queries[:TIMED]
    if len(ks) > 1:
        shard.search(few, 1)  # pages it in: the first k is not timed colder than the others
    for k in ks[:-1]:
        started = time.perf_counter()
        shard.search(few, k)
        seconds[k] = (time.perf_counter() - started) * len(queries) / len(few)
    started = time.perf_counter()
    found = shard.search(queries, ks[-1])
    return found, {**seconds, ks[-1]: time.perf_counter() - started}


def _exact(vectors: np.ndarray, rows: np.ndarray) -> Shard:
    blocks = Blocks.of(vectors, rows)
    return Shard(Flat.of(blocks.fill(np.empty((len(blocks), blocks.dim), np.float32))), rows)
