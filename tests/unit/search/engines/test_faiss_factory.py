"""Indexes of FAISS: exact where they say so, near where they do not, and what settings do to them."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from retrieval.evaluation.metrics import index_recall_at_k
from retrieval.search.index import Searcher, build_shard, train_index
from retrieval.search.settings import IndexConfig
from tests.support.vectors import brute_force, clustered, index_of


@pytest.mark.parametrize(
    ("factory", "least"),
    [
        ("IVF16,Flat", 0.95),
        ("HNSW16", 0.95),
        ("IVF16,PQ8x4fs,RFlat", 0.9),
        ("IVF16,RaBitQ,RFlat", 0.6),
        ("PCA24,IVF16,Flat", 0.3),
        ("SQ8", 0.9),
    ],
)
@pytest.mark.parametrize("mmap", [True, False])
def test_approximate_indexes_find_most_neighbours(tmp_path: Path, factory: str, least: float, mmap: bool) -> None:
    vectors, queries = clustered(3000), clustered(50, seed=8)
    exact = Searcher.open(index_of(tmp_path / "flat", vectors, 1)).search(queries, 10)
    folder = index_of(tmp_path / "it", vectors, 3, factory=factory, nprobe=12, refine_factor=10)
    found = Searcher.open(folder, mmap=mmap).search(queries, 10)
    assert index_recall_at_k(found.rows, exact.rows) >= least
    assert (np.diff(found.scores, axis=1) <= 0).all()


def test_knobs_are_kept_in_the_file(tmp_path: Path) -> None:
    vectors, queries = clustered(3000), clustered(100, seed=8)
    exact = Searcher.open(index_of(tmp_path / "flat", vectors, 1)).search(queries, 10)
    recall = {}
    for name, settings in {
        "probe 1": {"factory": "IVF64,Flat", "nprobe": 1},
        "probe all": {"factory": "IVF64,Flat", "nprobe": 64},
        "visit 1": {"factory": "KDTree", "max_visits": 1},
        "visit all": {"factory": "KDTree"},
    }.items():
        found = Searcher.open(index_of(tmp_path / name, vectors, 1, **settings)).search(queries, 10)
        recall[name] = index_recall_at_k(found.rows, exact.rows)
    assert recall["probe all"] == recall["visit all"] == 1
    assert recall["probe 1"] < 0.95
    assert recall["visit 1"] < 0.95


def test_building_is_repeatable(tmp_path: Path) -> None:
    vectors, rows = clustered(2000), np.arange(2000)
    for factory in ("Flat", "HNSW16", "IVF16,PQ8x4fs,RFlat", "KDTree"):
        config = IndexConfig(factory=factory)
        trained = train_index(config, vectors)
        assert trained == train_index(config, vectors)
        assert build_shard(config, trained, vectors, rows) == build_shard(config, trained, vectors, rows)


@pytest.mark.parametrize(
    ("factory", "num", "message"),
    [
        ("Flatt", 100, "from factory string 'Flatt'.*could not parse"),
        ("IVF64,Flat", 50, "at least 64 training embeddings.*got 50"),
        ("PQ8", 200, "at least 256 training embeddings"),
        ("IVF4,PQ8,RFlat", 200, "at least 256 training embeddings"),
        ("IVF4,PQ7", 500, "IVF4,PQ7"),
    ],
)
def test_unusable_factories_say_why(factory: str, num: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_index(IndexConfig(factory=factory), clustered(num))


def test_flat_looks_deeper_when_near_ties_reach_past_what_was_proposed(tmp_path: Path) -> None:
    """Vectors whose scores differ by less than float32 products can tell: the fixed score alone decides."""
    rng = np.random.default_rng(4)
    base = clustered(1, 128)[0]
    vectors = (base + 2e-8 * rng.normal(size=(600, 128))).astype(np.float32)
    found = Searcher.open(index_of(tmp_path / "i", vectors, 3)).search(base, 10)
    assert found.rows.tolist() == brute_force(base[None], vectors, 10)


def test_opening_sets_the_thread_count(tmp_path: Path) -> None:
    folder = index_of(tmp_path / "i", clustered(20), 1)
    Searcher.open(folder, num_threads=2)
    assert faiss.omp_get_max_threads() == 2
    Searcher.open(folder)
    assert faiss.omp_get_max_threads() == 1
