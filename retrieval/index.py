"""Search indexes: trained once, built shard by shard, searched as one. The only module that imports FAISS.

    trained = train_index(config, sample)                      # quantisers, or nothing for exact indexes
    data = build_shard(config, trained, embeddings, rows)      # any number of these, anywhere
    found = Searcher.open("index/").search(queries, k=10)      # scores and rows; rows are ordered by image_id

Scores are inner products, of embeddings that are L2-normalised by contract. Nothing here depends on that: exact
indexes rank any finite vectors by inner product. `Flat` and an unlimited `KDTree` are exact to the last bit and tie,
so any sharding gives the same lists. Approximate indexes score as FAISS does; their ties are put in order of row
among the k that FAISS returns, and which of several equal vectors reach the last places is left to FAISS.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import faiss
import numpy as np
import pyarrow as pa

from retrieval.artifacts import Folder, Manifest, read_manifest
from retrieval.kdtree import KDTree
from retrieval.ranking import (
    Neighbours,
    as_queries,
    drop_rows,
    inner_products,
    merge_top_k,
    pad,
    rounding_margin,
    top_k,
)

__all__ = [
    "IndexConfig",
    "Neighbours",
    "Searcher",
    "Shard",
    "build_shard",
    "merge_top_k",
    "needs_training",
    "train_index",
]

logger = logging.getLogger(__name__)

IDS = "ids.parquet"
KD_TREE = "KDTree"
_GPU_MAX_K = 2048
_QUERY_BLOCK = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig:
    """What kind of index, and how hard it looks."""

    factory: str = "Flat"
    """Flat (exact), KDTree (exact tree), or any FAISS factory string: IVF256,Flat HNSW32 IVF256,PQ16x4fs,RFlat ..."""
    num_shards: int | Literal["auto"] = "auto"
    """How many files the index is cut into, built and searched in parallel; auto is one per 500,000 images."""
    nprobe: int = 16
    """IVF: inverted lists visited per query. More is slower and finds more."""
    ef_search: int = 64
    """HNSW: candidates kept while walking the graph. More is slower and finds more."""
    refine_factor: float = 4.0
    """Refined indexes (...,RFlat): how many times k coarse candidates are scored again exactly."""
    train_sample: int = 100_000
    """IVF, PQ: how many embeddings, drawn at random, the quantisers are trained on."""
    leaf_size: int = 64
    """KDTree: embeddings in a leaf, at most (more only where they are all equal)."""
    max_visits: int | None = None
    """KDTree: leaves visited per query, at most; none means until the result is exact."""
    seed: int = 0
    """Draws the training sample and the starting centroids."""

    def __post_init__(self) -> None:
        for name in ("nprobe", "ef_search", "train_sample", "leaf_size", "max_visits", "num_shards"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name} is {value}, expected 1 or more.")
        if self.refine_factor < 1:
            raise ValueError(f"refine_factor is {self.refine_factor}, expected 1 or more.")


def needs_training(config: IndexConfig, dim: int) -> bool:
    """Whether `train_index` will look at its sample.

    Raises: ValueError for a factory string that FAISS does not know.
    """
    return config.factory != KD_TREE and not _empty(config, dim).is_trained


def train_index(config: IndexConfig, sample: np.ndarray) -> bytes:
    """The empty, trained index that every shard starts from, serialised; b"" for KDTree.

    Args:
        sample: (n, D) float32 embeddings drawn from the gallery; only D matters to indexes that need no training.

    Raises: ValueError for an unknown factory string, or fewer samples than the quantisers have centroids.
    """
    if config.factory == KD_TREE:
        return b""
    sample = np.ascontiguousarray(sample, dtype=np.float32)
    index = _empty(config, sample.shape[1])
    if not index.is_trained:
        least = _num_centroids(index)
        if len(sample) < least:
            raise ValueError(
                f"Factory '{config.factory}' needs at least {least} training embeddings (and about {39 * least} to be "
                f"good), got {len(sample)}. Use fewer centroids (IVF: at most IVF{max(1, len(sample) // 39)} here), or "
                f"'Flat' or 'HNSW32', which need no training."
            )
        index.train(sample)
    return faiss.serialize_index(index).tobytes()


def build_shard(config: IndexConfig, trained: bytes, embeddings: np.ndarray, rows: np.ndarray) -> bytes:
    """One shard of the index: the content of its file.

    Args:
        trained: what `train_index` returned.
        embeddings: (n, D) float32, n > 0. rows: (n,) int64, their distinct positions in the whole index.

    Raises: ValueError for NaN or infinite values, wrong shapes, or another dimension than was trained for.
    """
    embeddings, rows = _ordered(embeddings, rows)
    if config.factory == KD_TREE:
        return KDTree.build(embeddings, leaf_size=config.leaf_size, max_visits=config.max_visits).to_bytes(rows=rows)
    index = faiss.deserialize_index(np.frombuffer(trained, dtype=np.uint8))
    if index.d != embeddings.shape[1]:
        raise ValueError(
            f"The index was trained on {index.d}-dimensional embeddings, got {embeddings.shape[1]}. "
            f"Train it again on embeddings of this model."
        )
    # One thread: HNSW graphs come out the same every time, and shards are already built in parallel.
    faiss.omp_set_num_threads(1)
    whole = faiss.IndexIDMap(index)
    whole.add_with_ids(embeddings, rows)
    return faiss.serialize_index(whole).tobytes()


def _ordered(embeddings: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted by row, so that a shard's local order is the global order and breaks ties the same way."""
    embeddings, rows = np.asarray(embeddings, dtype=np.float32), np.asarray(rows, dtype=np.int64)
    if embeddings.ndim != 2 or rows.shape != (len(embeddings),) or len(rows) == 0:
        raise ValueError(
            f"A shard needs (n, D) embeddings and (n,) rows, n > 0; got shapes {embeddings.shape} and {rows.shape}."
        )
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    if rows[0] < 0 or (rows[1:] == rows[:-1]).any():
        raise ValueError("Rows must be distinct and not negative: each is one image's position in the whole index.")
    if not np.isfinite(embeddings).all():
        bad = int((~np.isfinite(embeddings).all(axis=1)).sum())
        raise ValueError(f"{bad} of {len(rows)} embeddings hold NaN or infinite values. Check the model, embed again.")
    return np.ascontiguousarray(embeddings[order]), rows


def _empty(config: IndexConfig, dim: int) -> Any:
    try:
        index = faiss.index_factory(dim, config.factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        reason = re.sub(r"^Error in .*?: ", "", str(error)).strip()
        raise ValueError(
            f"FAISS cannot make an index of {dim} dimensions from factory string '{config.factory}': {reason}. "
            f"Use 'Flat', 'KDTree', 'IVF256,Flat', 'HNSW32', 'IVF256,PQ16x4fs,RFlat' or see FAISS's index factory."
        ) from None
    return _configured(index, config)


def _configured(index: Any, config: IndexConfig) -> Any:
    """Set the search and training knobs of every layer; FAISS stores them with the index."""
    for layer in _layers(index):
        if isinstance(layer, faiss.IndexIVF):
            layer.nprobe = min(config.nprobe, layer.nlist)
            layer.cp.seed = config.seed + 1
        if isinstance(layer, faiss.IndexHNSW):
            layer.hnsw.efSearch = config.ef_search
        if isinstance(layer, faiss.IndexRefine):
            layer.k_factor = config.refine_factor
    return index


def _layers(index: Any) -> list[Any]:
    """The index and those it wraps, outermost first, each as its own class."""
    index = faiss.downcast_index(index)
    inside = []
    if isinstance(index, faiss.IndexRefine):
        inside = [index.base_index, index.refine_index]
    elif isinstance(index, faiss.IndexPreTransform):
        inside = [index.index]
    elif isinstance(index, faiss.IndexIVF):
        inside = [index.quantizer]
    elif isinstance(index, faiss.IndexHNSW):
        inside = [index.storage]
    return [index, *(layer for one in inside for layer in _layers(one))]


def _num_centroids(index: Any) -> int:
    """Training vectors without which FAISS fails: the largest number of centroids one of its k-means makes."""
    least = 1
    for layer in _layers(index):
        if isinstance(layer, faiss.IndexIVF):
            least = max(least, layer.nlist)
        quantizer = getattr(layer, "pq", None)
        if quantizer is not None:
            least = max(least, quantizer.ksub)
    return least


class _Engine(Protocol):
    """What searches one shard, by local position; `dim` is the embeddings' dimension. KDTree is one too."""

    @property
    def dim(self) -> int: ...

    def search(self, queries: np.ndarray, k: int) -> Neighbours: ...


class _Approximate:
    """Any FAISS index inside an IndexIDMap, its scores taken as they are."""

    def __init__(self, whole: Any) -> None:
        self.dim = int(whole.d)
        self.size = int(whole.ntotal)
        self._whole = whole  # frees what is inside it, so it must live as long
        self.index: Any = faiss.downcast_index(whole.index)
        self.gpu = _on_gpu(self.index)

    def propose(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        index = self.gpu if self.gpu is not None and k <= _GPU_MAX_K else self.index
        return index.search(queries, k)

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        scores, local = self.propose(queries, k)
        return top_k(scores, local, k)


class _Flat(_Approximate):
    """A flat FAISS index, with exact scores and exact ties."""

    def __init__(self, whole: Any) -> None:
        super().__init__(whole)
        self._vectors = faiss.rev_swig_ptr(self.index.get_xb(), self.size * self.dim).reshape(self.size, self.dim)
        self._max_norm = _max_norm(self._vectors)

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        """Propose more than k, score them in the fixed way, and look again, deeper, for every query where a vector that
        was not proposed could still belong."""
        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        margin = rounding_margin(queries, self._max_norm)
        if self.gpu is not None:  # may multiply in TF32, which rounds its inputs to 11 bits
            margin += 2.0**-10 * np.linalg.norm(queries, axis=1) * self._max_norm
        unsure, fetch = np.arange(len(queries)), k + 16 + k // 8
        while unsure.size:
            fetch = min(fetch, self.size)
            proposed, local = self.propose(queries[unsure], fetch)
            best = top_k(inner_products(queries[unsure], self._vectors, local), local, k)
            scores[unsure], rows[unsure] = best.scores, best.rows
            if fetch == self.size:
                break
            unsure = unsure[proposed[:, -1] + margin[unsure] >= best.scores[:, -1]]
            fetch *= 4
        return Neighbours(scores, rows)


class Shard:
    """One file of an index, opened.

    rows: (n,) int64, its positions in the whole index, ascending. dim: the embeddings' dimension. engine: what
    searches it by local position, a KDTree or one that holds a FAISS index as `index`.
    """

    def __init__(self, engine: _Engine, rows: np.ndarray) -> None:
        self.rows = rows
        self.dim = engine.dim
        self.engine = engine

    @classmethod
    def load(cls, folder: Folder | str | Path, name: str, *, num_threads: int = 1, mmap: bool = True) -> Shard:
        """Open the shard file `name` of `folder`.

        Args:
            num_threads: for FAISS, in the whole process. One is fastest for single queries and for many replicas.
            mmap: leave the vectors on disk, shared between processes, where the type of index allows it and the folder
                is local. KDTree is always read whole.

        Raises: ValueError if the file is not a whole shard.
        """
        folder = Folder.of(folder)
        faiss.omp_set_num_threads(num_threads)
        try:
            if name.endswith(".kdtree"):
                tree, extra = KDTree.from_bytes(folder.read_bytes(name))
                return cls(tree, extra["rows"])
            whole = _read(folder, name, mmap)
            flat = isinstance(faiss.downcast_index(whole.index), faiss.IndexFlat)
            return cls(_Flat(whole) if flat else _Approximate(whole), faiss.vector_to_array(whole.id_map))
        except (RuntimeError, AttributeError, KeyError, ValueError) as error:
            raise ValueError(f"{folder / name} is not a whole index shard ({error}). Build the index again.") from error

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        """The shard's k best for each query.

        Args:
            queries: (Q, D) float32. k: > 0; beyond the shard's size the lists are padded with row -1, score -inf.

        Returns: Neighbours with rows of the whole index.
        """
        queries = as_queries(queries, self.dim)
        if k < 1:
            raise ValueError(f"k is {k}, expected 1 or more.")
        width = min(k, len(self.rows))
        starts = range(0, len(queries), _QUERY_BLOCK)
        blocks = [self.engine.search(queries[i : i + _QUERY_BLOCK], width) for i in starts]
        scores = np.concatenate([block.scores for block in blocks] or [np.empty((0, k), np.float32)])
        local = np.concatenate([block.rows for block in blocks] or [np.empty((0, k), np.int64)])
        return pad(Neighbours(scores, np.where(local >= 0, self.rows[local], -1)), k)


class Searcher:
    """A whole index, opened: its shards searched one after another and merged.

    ids: (N,) object array of image_id by row, sorted. labels: (N,) object array of str or None by row.
    parts, rows_in_part: (N,) int32, where each image lies in its collection (images/part-*.parquet, row).
    """

    def __init__(self, shards: list[Shard], table: pa.Table, manifest: Manifest) -> None:
        self.manifest = manifest
        self.ids = table["image_id"].to_numpy(zero_copy_only=False)
        self.labels = table["label"].to_numpy(zero_copy_only=False)
        self.parts = table["part"].to_numpy()
        self.rows_in_part = table["row_in_part"].to_numpy()
        self.dim = shards[0].dim
        self.shards = shards

    @classmethod
    def open(cls, folder: Folder | str | Path, num_threads: int = 1, mmap: bool = True) -> Searcher:
        """Open a sealed index folder; see `Shard.load` for the arguments.

        Raises: ValueError if it is not sealed, or a shard is missing or broken.
        """
        folder = Folder.of(folder)
        manifest = read_manifest(folder, "index")
        names = [name for name in manifest.files if name.startswith("shard-")]
        shards = [Shard.load(folder, name, num_threads=num_threads, mmap=mmap) for name in names]
        table = folder.read_table(IDS)
        held = sum(len(shard.rows) for shard in shards)
        if not shards or held != len(table):
            raise ValueError(f"{folder}: {len(names)} shards hold {held} of {len(table)} images. Build it again.")
        return cls(shards, table, manifest)

    def __len__(self) -> int:
        return len(self.ids)

    def search(self, queries: np.ndarray, k: int, exclude_rows: np.ndarray | None = None) -> Neighbours:
        """The k best of the whole index for each query; equal scores in order of row, which is order of image_id.

        Args:
            queries: (Q, D) float32. k: > 0; lists longer than the index are padded with row -1, score -inf.
            exclude_rows: (Q,) int64, one row per query left out of its list (itself, in leave-one-out), -1 for none.

        Raises: ValueError for another dimension, NaN, or k < 1.
        """
        wanted = k if exclude_rows is None else k + 1
        found = merge_top_k([shard.search(queries, wanted) for shard in self.shards], wanted)
        return found if exclude_rows is None else drop_rows(found, exclude_rows, k)


def _read(folder: Folder, name: str, mmap: bool) -> Any:
    if not folder.is_local:
        return faiss.deserialize_index(np.frombuffer(folder.read_bytes(name), dtype=np.uint8))
    if mmap:
        try:
            return faiss.read_index(folder.file(name), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            logger.debug("%s cannot be memory-mapped (%s); reading it whole", name, error)
    return faiss.read_index(folder.file(name))


def _on_gpu(index: Any) -> Any:
    """A copy on the GPU, or None where there is no GPU or FAISS has no GPU form of this type."""
    if faiss.get_num_gpus() == 0:  # never index_cpu_to_all_gpus without asking: it returns an empty index
        return None
    try:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    except RuntimeError as error:
        logger.info("%s stays on the CPU: %s", type(index).__name__, error)
        return None


def _max_norm(vectors: np.ndarray, block: int = 65_536) -> float:
    norms = [np.linalg.norm(vectors[i : i + block], axis=1).max() for i in range(0, len(vectors), block)]
    return float(max(norms, default=0.0)) * (1 + 1e-6)
