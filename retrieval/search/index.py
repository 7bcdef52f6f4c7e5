"""Search indexes: trained once, built shard by shard, searched as one.

    trained = train_index(config, sample)                      # quantisers, or nothing for exact indexes
    data = build_shard(config, trained, embeddings, rows)      # any number of these, anywhere
    found = Searcher.open("index/").search(queries, k=10)      # scores and rows; rows are ordered by image_id

Scores are inner products, of embeddings that are L2-normalised by contract. Nothing here depends on that: exact
indexes rank any finite vectors by inner product. `Flat` and an unlimited `KDTree` are exact to the last bit and tie,
so any sharding gives the same lists. Approximate indexes score as FAISS does; their ties are put in order of row
among the k that FAISS returns, and which of several equal vectors reach the last places is left to FAISS.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import CHOSEN, IDS, KIND, chosen_settings, shards_of
from retrieval.artifacts.manifest import Manifest, read_manifest
from retrieval.search.blocks import Blocks
from retrieval.search.engines.engine import Engine, kind_of, kind_of_file
from retrieval.search.engines.faiss_factory import Flat
from retrieval.search.ranking import Neighbours, Search, as_queries, drop_rows, merge_top_k, pad
from retrieval.search.settings import IndexConfig

_QUERY_BLOCK = 4096
_NOBODY = np.empty(0, dtype=np.int64)


def sample_size(config: IndexConfig, dim: int) -> int:
    """Of how many embeddings `train_index` would have a sample; 0: it looks at none.

    Raises: ValueError for a factory string that nobody knows.
    """
    return kind_of(config.factory).sample_size(config, dim)


def train_index(config: IndexConfig, sample: np.ndarray, num_threads: int = 1) -> bytes:
    """What every shard starts from, serialised: an empty, trained index; b"" for kinds that start from nothing.

    Args:
        sample: (n, D) float32 embeddings drawn from the gallery; only D matters to indexes that need no training.

    Raises: ValueError for an unknown factory string, or too few samples.
    """
    train = kind_of(config.factory).train
    return b"" if train is None else train(config, np.ascontiguousarray(sample, dtype=np.float32), num_threads)


def build_shard(config: IndexConfig, trained: bytes, embeddings: np.ndarray, rows: np.ndarray) -> bytes:
    """One shard of the index, of vectors in memory: the content of its file. `shards.write_shard` needs less memory.

    Args:
        trained: what `train_index` returned.
        embeddings: (n, D) float32, n > 0. rows: (n,) int64, their distinct positions in the whole index.

    Raises: ValueError for NaN or infinite values, wrong shapes, or another dimension than was trained for.
    """
    file = io.BytesIO()
    kind_of(config.factory).build(config, trained, Blocks.of(embeddings, rows))(file)
    return file.getvalue()


class Searchable(Protocol):
    """Some rows of an index, or all: a shard that is opened here, or what stands for shards that lie elsewhere."""

    dim: int

    def __len__(self) -> int:
        """How many rows."""
        ...

    @property
    def keeps_vectors(self) -> bool:
        """Whether `vectors_of` can be asked: an index may keep codes only."""
        ...

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Neighbours:
        """The k best of them for each query; see `Shard.search`."""
        ...

    def vectors_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of the rows (n,) are among them, (n,) bool, and the vectors of those, (m, D) float32, as added."""
        ...


def search_all(shards: Sequence[Searchable], queries: np.ndarray, k: int, allowed: np.ndarray | None) -> Neighbours:
    """The k best of several, as if they were one: an exact index gives the same however its rows are divided."""
    return merge_top_k([shard.search(queries, k, allowed) for shard in shards], k)


class Shard:
    """One file of an index, opened.

    rows: (n,) int64, its positions in the whole index, ascending. dim: the embeddings' dimension. engine: what
    searches it by local position.
    """

    def __init__(self, engine: Engine, rows: np.ndarray) -> None:
        self.rows = rows
        self.dim = engine.dim
        self.engine = engine

    @classmethod
    def load(cls, folder: Folder | str | Path, name: str, *, num_threads: int = 1, mmap: bool = True) -> Shard:
        """Open the shard file `name` of `folder`.

        Args:
            num_threads: for FAISS, in the whole process. One is fastest for single queries and for many replicas.
            mmap: leave the vectors on disk, shared between processes, where the kind of index allows it and the folder
                is local. KDTree is always read whole.

        Raises: ValueError if the file is not a whole shard.
        """
        folder = Folder.of(folder)
        try:
            shard = cls(*kind_of_file(name).load(folder, name, num_threads, mmap))
        except (RuntimeError, AttributeError, KeyError, ValueError) as error:
            raise ValueError(f"{folder / name} is not a whole index shard ({error}). Build the index again.") from error
        if folder.exists(CHOSEN):
            shard.engine.configure(IndexConfig(**chosen_settings(folder)))
        return shard

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def keeps_vectors(self) -> bool:
        return self.engine.vectors_of(_NOBODY) is not None

    def vectors_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of the rows (n,) are this shard's, and their vectors. Raises: ValueError where it keeps codes only."""
        local = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        mine = self.rows[local] == rows
        vectors = self.engine.vectors_of(local[mine])
        if vectors is None:
            raise ValueError("This shard holds codes instead of vectors.")
        return mine, vectors

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Neighbours:
        """The shard's k best for each query.

        Args:
            queries: (Q, D) float32. k: > 0; beyond the shard's size the lists are padded with row -1, score -inf.
            allowed: (N,) bool by row of the whole index, which may be found; None: all.

        Returns: Neighbours with rows of the whole index.
        """
        queries = as_queries(queries, self.dim)
        if k < 1:
            raise ValueError(f"k is {k}, expected 1 or more.")
        width = min(k, len(self.rows))
        starts = range(0, len(queries), _QUERY_BLOCK)
        mine = None if allowed is None else allowed[self.rows]
        blocks = [self.engine.search(queries[i : i + _QUERY_BLOCK], width, mine) for i in starts]
        scores = np.concatenate([block.scores for block in blocks] or [np.empty((0, k), np.float32)])
        local = np.concatenate([block.rows for block in blocks] or [np.empty((0, k), np.int64)])
        return pad(Neighbours(scores, np.where(local >= 0, self.rows[local], -1)), k)


def flat_search(vectors: np.ndarray) -> Search:
    """An exact search of (N, D) float32 vectors held in memory, by row: what an index of `Flat` would answer.

    Raises: ValueError for NaN or infinite values, or no vectors.
    """
    blocks = Blocks.of(vectors, np.arange(len(vectors)))
    return Shard(Flat.of(blocks.fill(np.empty((len(blocks), blocks.dim), np.float32))), blocks.rows).search


class Searcher:
    """A whole index, opened: its shards searched one after another and merged.

    Searching needs rows alone. What else ids.parquet says of them is read when it is first asked for:
    ids: (N,) object array of image_id by row, sorted. labels: (N,) object array of str or None by row.
    parts, rows_in_part: (N,) int32, where each image lies in its collection (images/part-*.parquet, row).
    """

    def __init__(self, shards: Sequence[Searchable], folder: Folder, manifest: Manifest) -> None:
        self.manifest = manifest
        self.dim = shards[0].dim
        self.shards = shards
        self._folder, self._num = folder, sum(map(len, shards))

    @classmethod
    def open(
        cls,
        folder: Folder | str | Path,
        num_threads: int = 1,
        mmap: bool = True,
        shards: Sequence[Searchable] | None = None,
    ) -> Searcher:
        """Open a sealed index folder.

        Args: num_threads, mmap: see `Shard.load`. shards: what searches its rows; None: its shards, opened here.

        Raises: ValueError if it is not sealed, or a shard is missing or broken.
        """
        folder = Folder.of(folder)
        manifest = read_manifest(folder, KIND)
        if shards is None:
            shards = [Shard.load(folder, name, num_threads=num_threads, mmap=mmap) for name in shards_of(manifest)]
        num, held = folder.num_rows(IDS), sum(map(len, shards))
        if not shards or held != num:
            raise ValueError(f"{folder}: {len(shards)} shards hold {held} of {num} images. Build it again.")
        return cls(shards, folder, manifest)

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of ids.parquet by row, as it lies there."""
        return self._folder.read_table(IDS, columns=[name])[name]

    @functools.cached_property
    def ids(self) -> np.ndarray:
        return self.column("image_id").to_numpy(zero_copy_only=False)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        return self.column("label").to_numpy(zero_copy_only=False)

    @functools.cached_property
    def parts(self) -> np.ndarray:
        return self.column("part").to_numpy()

    @functools.cached_property
    def rows_in_part(self) -> np.ndarray:
        return self.column("row_in_part").to_numpy()

    def __len__(self) -> int:
        return self._num

    def search(
        self,
        queries: np.ndarray,
        k: int,
        exclude_rows: np.ndarray | None = None,
        allowed: np.ndarray | None = None,
    ) -> Neighbours:
        """The k best of the whole index for each query; equal scores in order of row, which is order of image_id.

        Args:
            queries: (Q, D) float32. k: > 0; lists longer than the index are padded with row -1, score -inf.
            exclude_rows: (Q,) int64, one row per query left out of its list (itself, in leave-one-out), -1 for none.
            allowed: (N,) bool by row, which may be found; None: all. Lists are k long, or hold all that are allowed.

        Raises: ValueError for another dimension, NaN, or k < 1.
        """
        wanted = k if exclude_rows is None else k + 1
        found = search_all(self.shards, queries, wanted, allowed)
        return found if exclude_rows is None else drop_rows(found, exclude_rows, k)
