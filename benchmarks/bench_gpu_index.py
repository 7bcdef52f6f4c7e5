"""FAISS on a GPU beside all cores of the same machine: exact search, search in lists, and training of lists.

    python benchmarks/bench_gpu_index.py

Both answer the same queries; `agree` is the share of the GPU's neighbours that the CPU names too. Without a GPU it says
so and ends.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval.evaluation.metrics import index_recall_at_k


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What to search."""

    num_gallery: int = 1_000_000
    """Drawn vectors."""
    dim: int = 128
    """Their dimension."""
    num_queries: int = 4096
    """Asked at once, and again 256 of them one by one."""
    num_lists: int = 4096
    """Of the inverted file."""
    rounds: int = 3
    """How often each is timed, in turn."""


def main(cfg: Config) -> None:
    """Run and print the table."""
    if faiss.get_num_gpus() == 0:
        print("FAISS finds no GPU here: nothing to measure.")
        return
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    gallery, queries = draw(cfg)
    gpu = faiss.StandardGpuResources()
    flat = faiss.IndexFlatIP(cfg.dim)
    flat.add(gallery)
    lists, on_cpu = trained(cfg, gallery, None)
    again, on_gpu = trained(cfg, gallery, gpu)
    print(f"{cfg.num_gallery} x {cfg.dim}, {cfg.num_queries} queries, k 10, {os.cpu_count()} threads or one GPU")
    print(f"{'':36}{'CPU s':>9}{'GPU s':>9}{'ratio':>8}{'agree':>8}")
    print(f"{f'train IVF{cfg.num_lists}':36}{on_cpu:>9.2f}{on_gpu:>9.2f}{on_cpu / on_gpu:>8.1f}")
    for name, index in (("Flat", flat), (f"IVF{cfg.num_lists},Flat nprobe 32", lists)):
        copy = faiss.index_cpu_to_gpu(gpu, 0, index)
        compare(f"{name}, all at once", cfg, index, copy, lambda one: one.search(queries, 10)[1])
        compare(f"{name}, 256 one by one", cfg, index, copy, lambda one: singly(one, queries[:256]))
    exact = flat.search(queries, 10)[1]
    for name, index in (("CPU", lists), ("GPU", again)):
        print(f"lists trained on the {name}: recall@10 {index_recall_at_k(index.search(queries, 10)[1], exact):.4f}")


def trained(cfg: Config, gallery: np.ndarray, gpu: Any) -> tuple[Any, float]:
    """An inverted file of the gallery and the seconds its k-means took."""
    index = faiss.index_factory(cfg.dim, f"IVF{cfg.num_lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.nprobe = 32
    if gpu is not None:
        index.clustering_index = faiss.index_cpu_to_gpu(gpu, 0, faiss.IndexFlatIP(cfg.dim))
    sample = gallery[: 64 * cfg.num_lists]
    started = time.perf_counter()
    index.train(sample)
    seconds = time.perf_counter() - started
    index.add(gallery)
    return index, seconds


def singly(index: Any, queries: np.ndarray) -> np.ndarray:
    return np.concatenate([index.search(query[None], 10)[1] for query in queries])


def compare(name: str, cfg: Config, index: Any, copy: Any, work: Callable[[Any], np.ndarray]) -> None:
    """Time both, in turn, and print the row."""
    found = [work(index), work(copy)]
    seconds: list[list[float]] = [[], []]
    for _ in range(cfg.rounds):
        for which, one in enumerate((index, copy)):
            started = time.perf_counter()
            work(one)
            seconds[which].append(time.perf_counter() - started)
    on_cpu, on_gpu = (statistics.median(each) for each in seconds)
    agree = index_recall_at_k(found[1], found[0])
    print(f"{name:36}{on_cpu:>9.3f}{on_gpu:>9.3f}{on_cpu / on_gpu:>8.1f}{agree:>8.4f}")


def draw(cfg: Config) -> tuple[np.ndarray, np.ndarray]:
    """Clustered like embeddings of people: ten photos each."""
    rng = np.random.default_rng(0)
    total = cfg.num_gallery + cfg.num_queries
    people = rng.normal(size=(total // 10, cfg.dim)).astype(np.float32)
    vectors = people[rng.integers(0, len(people), total)]
    vectors += 0.7 * rng.normal(size=vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[: cfg.num_gallery], vectors[cfg.num_gallery :]


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
