"""The gallery as it was indexed: neighbours, vectors and stored crops, by image_id and by row of the index.

A row is an integer and an image_id a key of a table that was read at the start; no path ever comes from a request.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval.artifacts.collection import Jpegs
from retrieval.artifacts.folder import part_name
from retrieval.artifacts.index import factory_of
from retrieval.artifacts.node.cache import NodeCache
from retrieval.artifacts.node.rows import open_rows
from retrieval.artifacts.published import Pair
from retrieval.live.columns import Columns
from retrieval.live.entries import Entry, Hit, photo_of
from retrieval.search.index import Searchable, Searcher
from retrieval.search.ranking import Neighbours
from retrieval.search.vectors import GalleryVectors, Source


class SealedGallery:
    """Opened once, then only read. Safe to use from several threads.

    Maps the columns that filters ask; holds the footers of the parts used last, and the JPEGs asked for last.
    """

    def __init__(
        self,
        pair: Pair,
        *,
        shards: Sequence[Searchable] | None = None,
        cache: NodeCache | None = None,
        num_cached: int = 512,
    ) -> None:
        """Args: shards: what searches the index; None: it is opened here. cache: see `node.rows.open_rows`. num_cached:
        JPEGs kept in memory (about 15 KB each).

        Raises: ValueError if the index is not the one of the pair.
        """
        # One thread a query: two are slower on one query, and other queries have a use for the second core.
        self.searcher = Searcher.open(pair.index, num_threads=1, shards=shards)
        loaded = self.searcher.manifest.fingerprint
        if loaded != pair.index_fingerprint:
            raise ValueError(
                f"{pair.index} holds index {loaded[:12]}, expected {pair.index_fingerprint[:12]}: it was replaced "
                f"while the service started. Start it again."
            )
        rows = open_rows(pair.index, pair.collection, pair.people, cache)
        self.columns = Columns(rows)
        self.searcher.parts, self.searcher.rows_in_part = rows.part, rows.row_in_part
        self.vectors_of_rows = GalleryVectors(self.searcher, pair.workspace)
        self._images = pair.collection / "images"
        self._stored = Jpegs(pair.collection)
        self._jpeg_at = functools.lru_cache(maxsize=num_cached)(self._read)
        self._part = functools.lru_cache(maxsize=32)(self._read_part)

    def __len__(self) -> int:
        return len(self.searcher)

    @property
    def vectors(self) -> Source:
        """Where the gallery's own embeddings are read: index, embeddings or none."""
        return self.vectors_of_rows.source

    @property
    def factory(self) -> str:
        return factory_of(self.searcher.manifest)

    @property
    def dim(self) -> int:
        return self.searcher.dim

    def why_no_vectors(self) -> str:
        return (
            f"index '{self.factory}' holds codes instead of embeddings, and those it was built from are not in the "
            f"workspace"
        )

    def nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Neighbours:
        """The k best rows of each query, or all there are. Args: queries: (Q, D) float32. allowed: (N,) bool by row."""
        return self.searcher.search(queries, min(k, len(self)), allowed=allowed)

    def hits(self, rows: Sequence[int], scores: Sequence[float], person: np.ndarray) -> list[Hit]:
        """What was found, told. Args: person: (N,) int32, who is who now."""
        columns = self.columns
        ids = columns.ids.take(pa.array(rows, pa.int64())).to_pylist()
        return [
            Hit(
                image_id=image_id,
                score=score,
                label=columns.label.name(row),
                row=row,
                split=columns.split.name(row),
                person=known(person[row]),
                added=columns.added_at(row),
                photo=photo_of(image_id, known(columns.face[row])),
                face=known(columns.face[row]),
            )
            for image_id, row, score in zip(ids, rows, scores, strict=True)
        ]

    def entry(self, row: int, person: np.ndarray) -> Entry:
        """All that is known of a row."""
        columns = self.columns
        image_id, face = columns.ids[row].as_py(), known(columns.face[row])
        stored = self.stored(row)
        return Entry(
            image_id=image_id,
            label=columns.label.name(row),
            split=columns.split.name(row),
            person=known(person[row]),
            attributes=columns.attributes_of(row),
            added=columns.added_at(row),
            where="sealed",
            photo=photo_of(image_id, face),
            face=face,
            width=stored["width"] or 0,
            height=stored["height"] or 0,
            content_hash=stored["content_hash"] or "",
        )

    def jpeg_at(self, row: int) -> bytes:
        """The stored crop of a row of the index.

        Raises: IndexError if there is no such row; ValueError if the collection is damaged.
        """
        return self._jpeg_at(row)

    def place(self, row: int) -> tuple[int, int]:
        """Part and row in the collection of a row of the index."""
        return int(self.searcher.parts[row]), int(self.searcher.rows_in_part[row])

    def read_one(self) -> bytes:
        """A stored crop, from where it is stored. Raises: OSError or ValueError if it cannot be read."""
        return self._read(0)

    def forget(self) -> None:
        """Let go of every crop in memory: one of them was deleted."""
        self._jpeg_at.cache_clear()

    def close(self) -> None:
        """Nobody asks it any more: what it holds is let go at once, not when a collector comes by."""
        del self._jpeg_at, self._part, self._stored, self.vectors_of_rows, self.searcher, self.columns

    def stored(self, row: int) -> Mapping[str, Any]:
        """width, height and content_hash of the stored crop of a row."""
        part, place = self.place(row)
        return {name: column[place].as_py() for name, column in self._part(part).items()}

    def _read(self, row: int) -> bytes:
        if not 0 <= row < len(self):
            raise IndexError(f"Row {row} is not in 0..{len(self) - 1}.")
        place = self.place(row)
        return self._stored.read([place])[place]

    def _read_part(self, part: int) -> dict[str, pa.ChunkedArray]:
        names = ["width", "height", "content_hash"]
        table = self._images.read_table(part_name(part), columns=names)
        return {name: table[name] for name in names}


def known(number: np.integer) -> int | None:
    """None for -1."""
    return int(number) if number >= 0 else None
