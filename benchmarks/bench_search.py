"""Time of a query set by each kind of index, beside scikit-learn's KDTree and SciPy's cKDTree on the same vectors.

    python benchmarks/bench_search.py
    python benchmarks/bench_search.py --embeddings workspace/embeddings/...      # real ones instead of drawn ones

All in one process and on one thread, one after another. The published face system took 41 s for its query set (k = 10).
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before numpy reads them

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from scipy.spatial import cKDTree  # pyright: ignore[reportAttributeAccessIssue]
from sklearn.neighbors import KDTree as SklearnKDTree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval.artifacts.folder import Folder
from retrieval.evaluation.metrics import index_recall_at_k
from retrieval.search.engines.engine import kind_of
from retrieval.search.index import Shard, build_shard, train_index
from retrieval.search.settings import IndexConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What to search."""

    embeddings: str | None = None
    """Folder of embeddings made by ray_jobs.embed; its last images are the queries. None draws clustered vectors."""
    num_gallery: int = 20_000
    """Drawn vectors to search."""
    num_queries: int = 1_000
    """Queries, not in the gallery."""
    dim: int = 128
    """Dimension of drawn vectors."""
    k: int = 10
    """Neighbours per query."""
    seed: int = 0
    """For the drawn vectors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One row of the table: seconds to build, seconds for the whole query set, rows found (Q, k)."""

    name: str
    build: float
    search: float
    rows: np.ndarray


OURS = {
    "KDTree, exact": IndexConfig(factory="KDTree"),
    "KDTree, 32 leaves": IndexConfig(factory="KDTree", max_visits=32),
    "Flat": IndexConfig(factory="Flat"),
    "IVF128,Flat": IndexConfig(factory="IVF128,Flat", nprobe=16),
    "HNSW32": IndexConfig(factory="HNSW32", ef_search=64),
    "IVF128,PQ32x4fs,RFlat": IndexConfig(factory="IVF128,PQ32x4fs,RFlat", nprobe=32, refine_factor=10),
}


def main(cfg: Config) -> list[Line]:
    """Run, print the table, return its rows."""
    gallery, queries = load(cfg) if cfg.embeddings else draw(cfg)
    k = min(cfg.k, len(gallery))
    print(f"{len(queries)} queries, gallery {len(gallery)} x {gallery.shape[1]}, k {k}, one thread")
    lines = [run(name, config, gallery, queries, k) for name, config in OURS.items()]
    lines.append(run_tree("scikit-learn KDTree", lambda: SklearnKDTree(gallery, leaf_size=40), queries, k))
    lines.append(run_tree("SciPy cKDTree", lambda: cKDTree(gallery, leafsize=16), queries, k))
    exact = next(line.rows for line in lines if line.name == "Flat")
    sklearn, scipy = lines[-2].search, lines[-1].search
    print(f"{'':24}{'build s':>9}{'query s':>9}{'x sklearn':>11}{'x SciPy':>9}{'index_recall@' + str(k):>17}")
    for line in lines:
        recall = index_recall_at_k(line.rows, exact)
        ratios = f"{sklearn / line.search:>11.1f}{scipy / line.search:>9.1f}"
        print(f"{line.name:24}{line.build:>9.2f}{line.search:>9.3f}{ratios}{recall:>17.4f}")
    return lines


def run(name: str, config: IndexConfig, gallery: np.ndarray, queries: np.ndarray, k: int) -> Line:
    """Build and search one of our indexes through its file, as the service does."""
    with tempfile.TemporaryDirectory() as temp:
        folder, file = Folder.of(temp), f"shard{kind_of(config.factory).suffix}"
        started = time.perf_counter()
        folder.write_bytes(file, build_shard(config, train_index(config, gallery), gallery, np.arange(len(gallery))))
        shard = Shard.load(folder, file)
        build = time.perf_counter() - started
        search, found = best_of(3, lambda: shard.search(queries, k).rows)
        return Line(name=name, build=build, search=search, rows=found)


def run_tree(name: str, build: Callable[[], SklearnKDTree | cKDTree], queries: np.ndarray, k: int) -> Line:
    """The other libraries' trees rank by L2 distance, which on L2-normalised vectors is the same order."""
    started = time.perf_counter()
    tree = build()
    built = time.perf_counter() - started
    search, found = best_of(1, lambda: np.asarray(tree.query(queries, k=k)[1]).reshape(len(queries), k))
    return Line(name=name, build=built, search=search, rows=found)


def best_of(times: int, work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Least seconds of several runs, and what the last one returned."""
    seconds, result = [], np.empty(0)
    for _ in range(times):
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    return min(seconds), result


def draw(cfg: Config) -> tuple[np.ndarray, np.ndarray]:
    """Clustered like embeddings of people: ten photos each, cosine about 0.67 within a person, 0 between."""
    rng = np.random.default_rng(cfg.seed)
    total = cfg.num_gallery + cfg.num_queries
    people = rng.normal(size=(max(1, total // 10), cfg.dim))
    vectors = people[rng.integers(0, len(people), total)] + 0.7 * rng.normal(size=(total, cfg.dim))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return vectors[: cfg.num_gallery], vectors[cfg.num_gallery :]


def load(cfg: Config) -> tuple[np.ndarray, np.ndarray]:
    """The last `num_queries` images (at most a tenth) of an embeddings folder query the others."""
    folder = Folder.of(str(cfg.embeddings))
    parts = [folder.read_table(name, columns=["embedding"]) for name in folder.list() if name.endswith(".parquet")]
    if not parts:
        raise ValueError(f"{folder} holds no embeddings. Name a folder made by python -m ray_jobs.embed.")
    vectors = np.concatenate([np.stack(part["embedding"].to_numpy()) for part in parts]).astype(np.float32)
    vectors = vectors[np.random.default_rng(cfg.seed).permutation(len(vectors))]
    num = max(1, min(cfg.num_queries, len(vectors) // 10))
    return vectors[:-num], vectors[-num:]


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
