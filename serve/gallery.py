"""The stored crops of the gallery, by row of the index. A row is an integer; no path ever comes from a request."""

from __future__ import annotations

import functools

from retrieval.artifacts.collection import Jpegs
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import IDS


class Gallery:
    """Reads single JPEGs out of a collection. Safe to use from several threads.

    Holds 8 bytes an image, the footers of the parts used last, and the JPEGs asked for last.
    """

    def __init__(self, collection: Folder, index: Folder, *, num_cached: int = 512) -> None:
        """Args: collection, index: sealed folders; the index was made from the collection.
        num_cached: JPEGs kept in memory (about 15 KB each)."""
        table = index.read_table(IDS, columns=["part", "row_in_part"])
        self._parts = table["part"].to_numpy()
        self._rows = table["row_in_part"].to_numpy()
        self._stored = Jpegs(collection)
        self.jpeg = functools.lru_cache(maxsize=num_cached)(self._read)

    def __len__(self) -> int:
        return len(self._rows)

    def _read(self, row: int) -> bytes:
        """The JPEG of one row.

        Raises: IndexError if there is no such row; ValueError if the collection is damaged.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"Row {row} is not in 0..{len(self) - 1}.")
        place = int(self._parts[row]), int(self._rows[row])
        return self._stored.read([place])[place]
