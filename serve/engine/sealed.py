"""The gallery as it was indexed: neighbours, vectors and stored crops, by image_id and by row of the index.

A row is an integer and an image_id a key of a table that was read at the start; no path ever comes from a request.
"""

from __future__ import annotations

import bisect
import functools
from dataclasses import dataclass

import numpy as np

from retrieval.artifacts.collection import Jpegs
from retrieval.artifacts.index import factory_of
from retrieval.artifacts.published import Pair
from retrieval.search.index import Searcher
from retrieval.search.vectors import GalleryVectors, Source


@dataclass(frozen=True, slots=True)
class Hit:
    """An image that was found. score: inner product with the query. row: of the index."""

    image_id: str
    score: float
    label: str | None
    row: int


class SealedGallery:
    """Opened once, then only read. Safe to use from several threads.

    Holds the index's table, the footers of the parts used last, and the JPEGs asked for last.
    """

    def __init__(self, pair: Pair, *, num_cached: int = 512) -> None:
        """Args: num_cached: JPEGs kept in memory (about 15 KB each).

        Raises: ValueError if the index is not the one of the pair.
        """
        # One thread a query: two are slower on one query, and other queries have a use for the second core.
        self.searcher = Searcher.open(pair.index, num_threads=1)
        loaded = self.searcher.manifest.fingerprint
        if loaded != pair.index_fingerprint:
            raise ValueError(
                f"{pair.index} holds index {loaded[:12]}, expected {pair.index_fingerprint[:12]}: it was replaced "
                f"while the service started. Start it again."
            )
        self._vectors = GalleryVectors(self.searcher, pair.workspace)
        self._stored = Jpegs(pair.collection)
        self._jpeg_at = functools.lru_cache(maxsize=num_cached)(self._read)

    def __len__(self) -> int:
        return len(self.searcher)

    @property
    def vectors(self) -> Source:
        """Where the gallery's own embeddings are read: index, embeddings or none."""
        return self._vectors.source

    @property
    def factory(self) -> str:
        return factory_of(self.searcher.manifest)

    @property
    def dim(self) -> int:
        return self.searcher.dim

    @functools.cached_property
    def num_identities(self) -> int:
        return len({label for label in self.searcher.labels if label is not None})

    def search(self, queries: np.ndarray, k: int) -> list[list[Hit]]:
        """The k best of each query, best first; fewer where there are no more.

        Args: queries: (Q, D) float32.
        """
        found = self.searcher.search(queries, min(k, len(self.searcher)))
        ids, labels = self.searcher.ids, self.searcher.labels
        return [
            [
                Hit(str(ids[row]), score, None if labels[row] is None else str(labels[row]), row)
                for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
                if row >= 0
            ]
            for rows, scores in zip(found.rows, found.scores, strict=True)
        ]

    def vectors_of(self, image_ids: list[str]) -> np.ndarray:
        """(n, D) float32, as they were embedded.

        Raises: KeyError for an image that is not there; ValueError where the index keeps codes only, and the
            embeddings are gone.
        """
        return self._vectors(np.array([self.row_of(image_id) for image_id in image_ids], dtype=np.int64))

    def row_of(self, image_id: str) -> int:
        """Raises: KeyError."""
        ids = self.searcher.ids  # sorted
        place = bisect.bisect_left(ids, image_id)
        if place == len(ids) or ids[place] != image_id:
            raise KeyError(image_id)
        return place

    def jpeg_at(self, row: int) -> bytes:
        """The stored crop of a row of the index.

        Raises: IndexError if there is no such row; ValueError if the collection is damaged.
        """
        return self._jpeg_at(row)

    def read_one(self) -> bytes:
        """A stored crop, from where it is stored. Raises: OSError or ValueError if it cannot be read."""
        return self._read(0)

    def jpeg(self, image_id: str) -> bytes:
        """The stored crop of an image. Raises: KeyError if it is not there; ValueError as above."""
        return self._jpeg_at(self.row_of(image_id))

    def _read(self, row: int) -> bytes:
        if not 0 <= row < len(self):
            raise IndexError(f"Row {row} is not in 0..{len(self) - 1}.")
        place = int(self.searcher.parts[row]), int(self.searcher.rows_in_part[row])
        return self._stored.read([place])[place]

    def close(self) -> None:
        """Nobody asks it any more."""
        del self._jpeg_at, self._vectors, self.searcher

    def why_no_vectors(self) -> str:
        return (
            f"index '{self.factory}' holds codes instead of embeddings, and those it was built from are not in the "
            f"workspace"
        )
