"""Any index that FAISS makes from a factory string: made empty, trained, filled, opened, searched."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import faiss
import numpy as np

from retrieval.artifacts.folder import Folder
from retrieval.search.engines.engine import Engine, Kind, is_scanned
from retrieval.search.engines.faiss_filling import build
from retrieval.search.engines.faiss_selecting import selecting
from retrieval.search.ranking import Neighbours, inner_products, merge_top_k, pad, rounding_margin, scan, top_k
from retrieval.search.settings import IndexConfig

logger = logging.getLogger(__name__)

_GPU_MAX_K = 2048
_GPU_LOCK = threading.Lock()  # indexes on a GPU share its scratch memory, and are not made for several threads at once
_FLAT_SCAN_SHARE = 0.05
_Propose = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
_PER_CENTROID = 39, 256  # FAISS warns below the first, and draws from what is above the second
_LEAST_SAMPLE = 1 << 16  # what the 256 centroids of a product quantiser use, and enough for a rotation or for PCA
_SAMPLE_BYTES = 4 << 30  # above it the sample grows with the lists at the lower rate
_SCAN_BLOCK = 1 << 16  # vectors gathered at once: 32 MiB of 128 dimensions


def sample_size(config: IndexConfig, dim: int) -> int:
    """Raises: ValueError for a factory string that FAISS does not know."""
    index = empty_index(config, dim)
    if index.is_trained or config.train_sample != "auto":
        return 0 if index.is_trained else int(config.train_sample)
    centroids = num_centroids(index)
    return max(_LEAST_SAMPLE, centroids * int(np.clip(_SAMPLE_BYTES // (4 * dim * centroids), *_PER_CENTROID)))


def train(config: IndexConfig, sample: np.ndarray, num_threads: int = 1) -> bytes:
    """The empty index, trained where it needs to be.

    Raises: ValueError for an unknown factory string, or fewer samples than the quantisers have centroids.
    """
    index = empty_index(config, sample.shape[1])
    if not index.is_trained:
        least = num_centroids(index)
        if len(sample) < least:
            raise ValueError(
                f"Factory '{config.factory}' needs at least {least} training embeddings (and about {39 * least} to be "
                f"good), got {len(sample)}. Use fewer centroids (IVF: at most IVF{max(1, len(sample) // 39)} here), or "
                f"'Flat' or 'HNSW32', which need no training."
            )
        faiss.omp_set_num_threads(num_threads)
        index.train(sample)
    return faiss.serialize_index(index).tobytes()


def load(folder: Folder, name: str, num_threads: int, mmap: bool) -> tuple[Engine, np.ndarray]:
    faiss.omp_set_num_threads(num_threads)
    whole = read_index(folder, name, mmap)
    flat = isinstance(faiss.downcast_index(whole.index), faiss.IndexFlat)
    return (Flat if flat else Approximate)(whole.index, whole), faiss.vector_to_array(whole.id_map)


def empty_index(config: IndexConfig, dim: int) -> Any:
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
    for layer in layers(index):
        if isinstance(layer, faiss.IndexIVF):
            layer.nprobe = min(config.nprobe, layer.nlist)
            layer.cp.seed = config.seed + 1
        if isinstance(layer, faiss.IndexHNSW):
            layer.hnsw.efSearch = config.ef_search
        if isinstance(layer, faiss.IndexRefine):
            layer.k_factor = config.refine_factor
    return index


def layers(index: Any) -> list[Any]:
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
    return [index, *(layer for one in inside for layer in layers(one))]


def num_centroids(index: Any) -> int:
    """Training vectors without which FAISS fails: the largest number of centroids one of its k-means makes."""
    least = 1
    for layer in layers(index):
        if isinstance(layer, faiss.IndexIVF):
            least = max(least, layer.nlist)
        quantizer = getattr(layer, "pq", None)
        if quantizer is not None:
            least = max(least, quantizer.ksub)
    return least


class Approximate:
    """Any FAISS index, its scores taken as they are."""

    def __init__(self, index: Any, whole: Any = None) -> None:
        """Args: whole: what the index lies in, if it lies in something."""
        self.dim = int(index.d)
        self.size = int(index.ntotal)
        self._owner = index if whole is None else whole  # frees what is inside it, so it must live as long
        self.index: Any = faiss.downcast_index(index)
        self.gpu = _on_gpu(self.index)
        self._exact = exact_layer(self.index)
        self._lock = threading.Lock()

    def configure(self, config: IndexConfig) -> None:
        _configured(self.index, config)

    def propose(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if self.gpu is None or k > _GPU_MAX_K:
            return self.index.search(queries, k)
        with _GPU_LOCK:
            return self.gpu.search(queries, k)

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Neighbours:
        if allowed is not None:
            return self._search_among(queries, k, allowed)
        scores, local = self.propose(queries, k)
        return top_k(scores, local, k)

    def _search_among(self, queries: np.ndarray, k: int, allowed: np.ndarray) -> Neighbours:
        """Few are scanned; of many the index proposes those that are allowed, and queries for which it came by too few
        of them are scanned after all."""
        num = int(np.count_nonzero(allowed))
        if is_scanned(num, self.size):
            return self._scan(queries, k, np.flatnonzero(allowed))
        try:
            scores, local = self.index.search(queries, k, params=selecting(self.index, allowed))
        except RuntimeError as error:  # a kind that takes no selector: PQ and the like without lists, NSG
            logger.debug("%s is scanned: %s", type(self.index).__name__, error)
            return self._scan(queries, k, np.flatnonzero(allowed))
        found = top_k(scores, local, k)
        short = np.flatnonzero((found.rows >= 0).sum(axis=1) < min(k, num))
        if short.size:
            whole = self._scan(queries[short], k, np.flatnonzero(allowed))
            found.scores[short], found.rows[short] = whole.scores, whole.rows
        return found

    def _scan(self, queries: np.ndarray, k: int, positions: np.ndarray) -> Neighbours:
        """The k best among these positions (n,), ascending: exact where vectors are kept, by their codes where not."""
        best = pad(Neighbours(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)), k)
        for start in range(0, len(positions), _SCAN_BLOCK):
            some = positions[start : start + _SCAN_BLOCK]
            found = scan(queries, self._vectors_at(some), k)
            found = Neighbours(found.scores, np.where(found.rows >= 0, some[found.rows], -1))
            best = merge_top_k([best, found], k)
        return best

    def _vectors_at(self, local: np.ndarray) -> np.ndarray:
        """(n, D) float32: as they were added, or what their codes stand for."""
        exact = self.vectors_of(local)
        if exact is not None:
            return exact
        lists = next((layer for layer in layers(self.index) if isinstance(layer, faiss.IndexIVF)), None)
        if lists is not None:
            with self._lock:
                lists.make_direct_map()
        return self.index.reconstruct_batch(np.ascontiguousarray(local, dtype=np.int64))

    def vectors_of(self, local: np.ndarray) -> np.ndarray | None:
        if self._exact is None:
            return None
        if not len(local):
            return np.empty((0, self.dim), dtype=np.float32)
        if isinstance(self._exact, faiss.IndexIVF):
            with self._lock:  # made once, when it is first needed: 8 bytes an image
                self._exact.make_direct_map()
        return self._exact.reconstruct_batch(np.ascontiguousarray(local, dtype=np.int64))


class Flat(Approximate):
    """A flat FAISS index, with exact scores and exact ties."""

    @classmethod
    def of(cls, vectors: np.ndarray) -> Flat:
        """Args: vectors: (n, D) float32, contiguous; copied."""
        faiss.omp_set_num_threads(1)
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return cls(index)

    def __init__(self, index: Any, whole: Any = None) -> None:
        super().__init__(index, whole)
        self._vectors = faiss.rev_swig_ptr(self.index.get_xb(), self.size * self.dim).reshape(self.size, self.dim)
        self._max_norm = max_norm(self._vectors)

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Neighbours:
        if allowed is None:
            return self._search(queries, k, self.size, self.propose)
        num = int(np.count_nonzero(allowed))
        if num <= _FLAT_SCAN_SHARE * self.size:  # both are exact: gathering few costs less than asking at all
            return self._scan(queries, k, np.flatnonzero(allowed))
        among = selecting(self.index, allowed)
        return self._search(queries, k, num, lambda some, fetch: self.index.search(some, fetch, params=among))

    def _vectors_at(self, local: np.ndarray) -> np.ndarray:
        return self._vectors[local]

    def _search(self, queries: np.ndarray, k: int, size: int, propose: _Propose) -> Neighbours:
        """Propose more than k of `size`, score them in the fixed way, and look again, deeper, for every query where a
        vector that was not proposed could still belong."""
        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        margin = rounding_margin(queries, self._max_norm)
        if self.gpu is not None:  # may multiply in TF32, which rounds its inputs to 11 bits
            margin += 2.0**-10 * np.linalg.norm(queries, axis=1) * self._max_norm
        unsure, fetch = np.arange(len(queries)), k + 16 + k // 8
        while unsure.size:
            fetch = min(fetch, size)
            proposed, local = propose(queries[unsure], fetch)
            best = top_k(inner_products(queries[unsure], self._vectors, local), local, k)
            scores[unsure], rows[unsure] = best.scores, best.rows
            if fetch == size:
                break
            unsure = unsure[proposed[:, -1] + margin[unsure] >= best.scores[:, -1]]
            fetch *= 4
        return Neighbours(scores, rows)


def read_index(folder: Folder, name: str, mmap: bool) -> Any:
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
        with _GPU_LOCK:
            return faiss.index_cpu_to_gpu(_gpu_resources(), 0, index)
    except RuntimeError as error:
        logger.info("%s stays on the CPU: %s", type(index).__name__, error)
        return None


@cache
def _gpu_resources() -> Any:
    """One for all shards of the process: each of these takes 1.5 GB of the GPU for scratch."""
    return faiss.StandardGpuResources()


def max_norm(vectors: np.ndarray, block: int = 65_536) -> float:
    norms = [np.linalg.norm(vectors[i : i + block], axis=1).max() for i in range(0, len(vectors), block)]
    return float(max(norms, default=0.0)) * (1 + 1e-6)


def exact_layer(index: Any) -> Any:
    """The part of a FAISS index that keeps every vector as it was added, or None if it keeps codes only."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        return exact_layer(index.refine_index)
    if isinstance(index, faiss.IndexHNSW):
        return exact_layer(index.storage)
    # Of IVF this very class: those made from it reorder or share what they store.
    return index if isinstance(index, faiss.IndexFlat) or type(index) is faiss.IndexIVFFlat else None


KIND = Kind(factory=None, suffix=".faiss", sample_size=sample_size, train=train, build=build, load=load)
