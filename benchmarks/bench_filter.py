"""Filtered search by each kind of index: recall against an exact scan, and seconds, at shares of 1, 10 and 50 %.

    python benchmarks/bench_filter.py
    python benchmarks/bench_filter.py --num-gallery 1000000 --shares 0.001 0.01 0.1 0.5

In one process and on one thread. "index" is what the index itself does with a selector, and how often its list came out
short; "served" is what `Shard.search` does: a scan where few are allowed, the index where many are.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench_search import Config as Drawn
from bench_search import draw

from retrieval.artifacts.folder import Folder
from retrieval.evaluation.metrics import index_recall_at_k
from retrieval.search.engines import engine, faiss_factory
from retrieval.search.engines.faiss_selecting import selecting
from retrieval.search.index import Shard, build_shard, train_index
from retrieval.search.ranking import Neighbours, scan
from retrieval.search.settings import IndexConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What to search."""

    num_gallery: int = 100_000
    """Drawn vectors to search."""
    num_queries: int = 50
    """Queries, one after another as a service gets them."""
    dim: int = 128
    """Dimension of drawn vectors."""
    k: int = 10
    """Neighbours per query."""
    shares: tuple[float, ...] = (0.01, 0.1, 0.5)
    """Parts of the gallery that a filter leaves."""
    kinds: tuple[str, ...] = ("Flat", "KDTree", "IVF256,Flat", "HNSW32", "IVF256,PQ32x4fs,RFlat")
    """Factory strings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One row of the table. recall, ms: of the index with its selector, and as served; short: lists that came out short
    of k by the index alone."""

    kind: str
    share: float
    by: str
    index_recall: float
    index_ms: float
    short: int
    recall: float
    ms: float


def main(cfg: Config) -> list[Line]:
    """Run, print the table, return its rows.

    `by` is how allowed vectors lie: at random, or those nearest to one place, as photos of one label or folder do.
    """
    drawn = Drawn(num_gallery=cfg.num_gallery, num_queries=cfg.num_queries, dim=cfg.dim)
    gallery, queries = draw(drawn)
    print(f"{len(queries)} queries one by one, gallery {len(gallery)} x {gallery.shape[1]}, k {cfg.k}, one thread")
    print(f"{'':24}{'share':>7}{'by':>8}{'index recall':>14}{'ms':>8}{'short':>7}{'served recall':>15}{'ms':>8}")
    lines = []
    for kind in cfg.kinds:
        shard = build(kind, gallery)
        for share in cfg.shares:
            for by, allowed in masks(gallery, share).items():
                line = measure(kind, shard, gallery, queries, cfg.k, share, by, allowed)
                lines.append(line)
                print(
                    f"{kind:24}{share:>7.1%}{by:>8}{line.index_recall:>14.4f}{line.index_ms:>8.2f}{line.short:>7}"
                    f"{line.recall:>15.4f}{line.ms:>8.2f}",
                    flush=True,
                )
    return lines


def build(kind: str, gallery: np.ndarray) -> Shard:
    """One shard of this kind, in memory, through the bytes of its file."""
    config = IndexConfig(factory=kind, nprobe=16, refine_factor=10)
    made = engine.kind_of(kind)
    with tempfile.TemporaryDirectory() as temp:
        folder, name = Folder.of(temp), f"shard{made.suffix}"
        trained = train_index(config, gallery[:: max(1, len(gallery) // 30_000)])
        folder.write_bytes(name, build_shard(config, trained, gallery, np.arange(len(gallery))))
        return Shard.load(folder, name, mmap=False)


def masks(gallery: np.ndarray, share: float) -> dict[str, np.ndarray]:
    """(N,) bool each: which vectors are allowed."""
    rng = np.random.default_rng(1)
    near = gallery @ gallery[0]
    return {"random": rng.random(len(gallery)) < share, "place": near >= np.quantile(near, 1 - share)}


def measure(
    kind: str,
    shard: Shard,
    gallery: np.ndarray,
    queries: np.ndarray,
    k: int,
    share: float,
    by: str,
    allowed: np.ndarray,
) -> Line:
    """Both ways of one filter, against a scan of what it leaves."""
    positions = np.flatnonzero(allowed)
    exact = positions[scan(queries, gallery[positions], k).rows]
    alone, seconds = timed(lambda one: index_alone(shard, one, k, allowed), queries)
    served, served_seconds = timed(lambda one: shard.search(one, k, allowed), queries)
    return Line(
        kind=kind,
        share=share,
        by=by,
        index_recall=index_recall_at_k(alone, exact),
        index_ms=1000 * seconds,
        short=int((alone < 0).any(axis=1).sum()),
        recall=index_recall_at_k(served, exact),
        ms=1000 * served_seconds,
    )


def index_alone(shard: Shard, query: np.ndarray, k: int, allowed: np.ndarray) -> Neighbours:
    """What FAISS finds with a selector and nothing else; a KDTree as it always is."""
    found = shard.engine
    if not isinstance(found, faiss_factory.Approximate):
        return shard.search(query, k, allowed)
    scores, rows = found.index.search(query, k, params=selecting(found.index, allowed))
    return Neighbours(scores, rows)


def timed(search: Callable[[np.ndarray], Neighbours], queries: np.ndarray) -> tuple[np.ndarray, float]:
    """(Q, k) rows, and the median seconds of a query."""
    rows, seconds = [], []
    search(queries[:1])
    for query in queries:
        started = time.perf_counter()
        rows.append(search(query[None]).rows[0])
        seconds.append(time.perf_counter() - started)
    return np.stack(rows), float(np.median(seconds))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
