"""The gallery's own vectors, by row of the index: what query expansion adds to a query.

They are read out of the index where it keeps them as they were added: flat, KDTree, IVF..,Flat, HNSW over flat, and
anything refined with RFlat. PQ, SQ and the like keep codes, and a vector decoded from its code is another vector: then
the rows are read from the embeddings that the index was built from, which lie in the workspace. Why this and not one
way for all: docs/decisions/expansion-reads-the-index.md.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow.fs as pafs

from retrieval.artifacts.embeddings import read_rows
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import MANIFEST, read_manifest
from retrieval.search.index import Searcher

Source = Literal["index", "embeddings", "none"]


class GalleryVectors:
    """Called with rows, gives their vectors. `source` says where they come from; "none": they cannot be had."""

    def __init__(self, searcher: Searcher, workspace: Folder) -> None:
        """Args: workspace: where the embeddings are looked for, if the index does not hold them."""
        self._searcher = searcher
        self._embeddings: Folder | None = None
        self.source: Source = "index"
        if not all(shard.keeps_vectors for shard in searcher.shards):
            self._embeddings = find_embeddings(workspace, searcher.manifest.inputs.get("embeddings", ""))
            self.source = "none" if self._embeddings is None else "embeddings"

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Args: rows: (...) int64, each 0 or more. Returns: (..., D) float32, as they were embedded.

        Raises: ValueError if `source` is "none", or the embeddings are not those of the index.
        """
        wanted, places = np.unique(rows, return_inverse=True)
        if self.source == "none":
            raise ValueError("This index holds codes, not vectors, and its embeddings are not in the workspace.")
        read = self._from_index if self._embeddings is None else self._from_embeddings
        return read(wanted)[places.reshape(rows.shape)]

    def _from_index(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), self._searcher.dim), dtype=np.float32)
        for shard in self._searcher.shards:
            mine, vectors = shard.vectors_of(rows)
            out[mine] = vectors
        return out

    def _from_embeddings(self, rows: np.ndarray) -> np.ndarray:
        """A part of the embeddings is read whole for each part that holds a row, and let go again."""
        assert self._embeddings is not None
        of = self._searcher
        return read_rows(self._embeddings, of.ids[rows], of.parts[rows], of.rows_in_part[rows], of.dim)


def find_embeddings(workspace: Folder, fingerprint: str) -> Folder | None:
    """The sealed folder of embeddings with this fingerprint, in the workspace's own place for them; None if gone."""
    selector = pafs.FileSelector((workspace / "embeddings").path, allow_not_found=True)
    for info in workspace.fs.get_file_info(selector):
        folder = workspace / "embeddings" / info.base_name
        sealed = info.type == pafs.FileType.Directory and folder.exists(MANIFEST)
        if sealed and read_manifest(folder).fingerprint == fingerprint:
            return folder
    return None
