"""The vectors of one shard, some at a time: what an index is filled with, without all of them in memory beside it.

They come as they lie on storage, part after part, each with its place in the shard. An index whose vectors have places
of their own takes them so. One that must see all before it takes any, or that can only be added to in order of row,
which is another order, has them go through a file of this machine that has no name, so that nothing is left of it if
the process dies.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

BLOCK = 4 << 20  # bytes of vectors that are added at once: 8,192 of 128 numbers, 512 of 2,048
_LET_GO = 4 << 20  # bytes written to the file before its pages no longer count as this process's

Pieces = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]


class Blocks:
    """The n vectors of a shard. rows: (n,) int64, their positions in the whole index, ascending. dim: D."""

    def __init__(self, rows: np.ndarray, dim: int, pieces: Pieces) -> None:
        """Args: pieces: gives, each time, places (m,) int64 in `rows` and vectors (m, D) float32, in all n of them.

        Raises: ValueError for rows that are not distinct, or negative.
        """
        if rows[0] < 0 or (rows[1:] <= rows[:-1]).any():
            raise ValueError("Rows must be distinct and not negative: each is one image's position in the whole index.")
        self.rows, self.dim, self._pieces = rows, dim, pieces

    @classmethod
    def of(cls, embeddings: np.ndarray, rows: np.ndarray) -> Blocks:
        """Of vectors in memory. Args: embeddings: (n, D) float32, n > 0. rows: (n,) int64, in any order.

        Raises: ValueError for wrong shapes, or rows that are not distinct.
        """
        embeddings, rows = np.asarray(embeddings, dtype=np.float32), np.asarray(rows, dtype=np.int64)
        if embeddings.ndim != 2 or rows.shape != (len(embeddings),) or len(rows) == 0:
            raise ValueError(
                f"A shard needs (n, D) embeddings and (n,) rows, n > 0; got shapes {embeddings.shape} and {rows.shape}."
            )
        order = np.argsort(rows, kind="stable")
        places = np.empty_like(order)
        places[order] = np.arange(len(rows))
        return cls(rows[order], embeddings.shape[1], lambda: iter([(places, embeddings)]))

    def __len__(self) -> int:
        return len(self.rows)

    def placed(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places (m,) int64 and vectors (m, D) float32, as they lie on storage.

        Raises: ValueError for NaN or infinite values.
        """
        for places, vectors in self._pieces():
            with np.errstate(all="ignore"):
                sound = np.isfinite(vectors.sum())  # one pass; which are bad is looked for only where some may be
            if not sound and (bad := int((~np.isfinite(vectors).all(axis=1)).sum())):
                raise ValueError(
                    f"{bad} of {len(vectors)} embeddings hold NaN or infinite values. Check the model, embed again."
                )
            yield places, vectors

    def fill(self, into: np.ndarray) -> np.ndarray:
        """Put each vector in its place of `into`, (n, D) float32, which is returned."""
        for places, vectors in self.placed():
            into[places] = vectors
        return into

    def looked_at(self, look: Callable[[np.ndarray], object]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As `placed`, once `look` has seen all vectors, some at a time: until then they wait in the file.

        Raises: as `placed`, and as `in_order`.
        """
        with self._file() as file:
            seen = []
            for places, vectors in _together(self.placed()):
                look(vectors)
                file.write(np.ascontiguousarray(vectors).data)
                seen.append(places)
            file.seek(0)
            for places in seen:
                yield places, self._next(file, len(places))

    @contextmanager
    def in_order(self, block: int = BLOCK) -> Iterator[Callable[[], Iterator[np.ndarray]]]:
        """A call that gives all vectors in order of row, (m, D) float32 at a time, as often as it is called.

        Args: block: bytes of a block; at least one vector.

        Raises: OSError if the folder for temporary files (TMPDIR) has no room for the vectors.
        """
        step = max(1, block // (4 * self.dim))
        with self._file() as file:
            self._spill(file.fileno())

            def blocks() -> Iterator[np.ndarray]:
                file.seek(0)
                for start in range(0, len(self), step):
                    yield self._next(file, min(step, len(self) - start))

            yield blocks

    @contextmanager
    def _file(self) -> Iterator[Any]:
        with tempfile.TemporaryFile() as file:
            # A full disk is an error now, not a signal later.
            os.posix_fallocate(file.fileno(), 0, 4 * self.dim * len(self))
            yield file

    def _next(self, file: Any, num: int) -> np.ndarray:
        return np.fromfile(file, dtype=np.float32, count=num * self.dim).reshape(num, self.dim)

    def _spill(self, number: int) -> None:
        written = 0
        with mmap.mmap(number, 4 * self.dim * len(self)) as pages:
            into = np.frombuffer(pages, dtype=np.float32).reshape(len(self), self.dim)
            try:
                for places, vectors in self.placed():
                    into[places] = vectors
                    written += vectors.nbytes
                    if written >= _LET_GO:
                        pages.madvise(mmap.MADV_DONTNEED)  # they stay in the file; this process no longer holds them
                        written = 0
            finally:
                del into  # pages that something looks at cannot be closed


def _together(pieces: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same, a block or more at a time: of few vectors each, a matrix product costs twice as much."""
    waiting = list[tuple[np.ndarray, np.ndarray]]()
    for piece in pieces:
        waiting.append(piece)
        if sum(vectors.nbytes for _, vectors in waiting) >= BLOCK:
            yield _joined(waiting)
            waiting.clear()
    if waiting:
        yield _joined(waiting)


def _joined(pieces: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate([places for places, _ in pieces]), np.concatenate([vectors for _, vectors in pieces])
