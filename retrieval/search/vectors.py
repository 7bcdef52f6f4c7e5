"""The gallery's own vectors, by row of the index: what query expansion adds to a query.

They are read out of the index where it keeps them as they were added: flat, KDTree, IVF..,Flat, HNSW over flat, and
anything refined with RFlat. PQ, SQ and the like keep codes, and a vector decoded from its code is another vector: then
the rows are read from the embeddings that the index was built from, which lie in the workspace. Why this and not one
way for all: docs/decisions/expansion-reads-the-index.md.
"""

from __future__ import annotations

import threading
from typing import Any, Literal

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from retrieval.artifacts.embeddings import read_rows
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import MANIFEST, read_manifest
from retrieval.search.engines.faiss_factory import exact_layer
from retrieval.search.engines.kdtree import KDTree
from retrieval.search.index import Searcher

Source = Literal["index", "embeddings", "none"]


class GalleryVectors:
    """Called with rows, gives their vectors. `source` says where they come from; "none": they cannot be had."""

    def __init__(self, searcher: Searcher, workspace: Folder) -> None:
        """Args: workspace: where the embeddings are looked for, if the index does not hold them."""
        self._searcher = searcher
        self._readers = [_Reader.of(shard.engine) for shard in searcher.shards]
        self._embeddings: Folder | None = None
        self.source: Source = "index"
        if any(reader is None for reader in self._readers):
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
        for shard, reader in zip(self._searcher.shards, self._readers, strict=True):
            local = np.minimum(np.searchsorted(shard.rows, rows), len(shard.rows) - 1)
            mine = shard.rows[local] == rows
            if reader is not None and mine.any():
                out[mine] = reader.read(local[mine])
        return out

    def _from_embeddings(self, rows: np.ndarray) -> np.ndarray:
        """A part of the embeddings is read whole for each part that holds a row, and let go again."""
        assert self._embeddings is not None
        of = self._searcher
        ids = pa.array(of.ids[rows], pa.string())
        columns = {"image_id": ids, "part": of.parts[rows], "row_in_part": of.rows_in_part[rows]}
        return read_rows(self._embeddings, pa.table(columns), np.arange(len(rows)), of.dim)


class _Reader:
    """Reads the vectors of one shard by local position."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._lock = threading.Lock()

    @classmethod
    def of(cls, engine: Any) -> _Reader | None:
        """None where only codes are kept."""
        layer = engine if isinstance(engine, KDTree) else exact_layer(engine.index)
        return None if layer is None else cls(layer)

    def read(self, local: np.ndarray) -> np.ndarray:
        if isinstance(self._layer, KDTree):
            return self._layer.vectors_of(local)
        if isinstance(self._layer, faiss.IndexIVF):
            with self._lock:  # made once, when it is first needed: 8 bytes an image
                self._layer.make_direct_map()
        return self._layer.reconstruct_batch(np.ascontiguousarray(local, dtype=np.int64))


def find_embeddings(workspace: Folder, fingerprint: str) -> Folder | None:
    """The sealed folder of embeddings with this fingerprint, in the workspace's own place for them; None if gone."""
    selector = pafs.FileSelector((workspace / "embeddings").path, allow_not_found=True)
    for info in workspace.fs.get_file_info(selector):
        folder = workspace / "embeddings" / info.base_name
        sealed = info.type == pafs.FileType.Directory and folder.exists(MANIFEST)
        if sealed and read_manifest(folder).fingerprint == fingerprint:
            return folder
    return None
