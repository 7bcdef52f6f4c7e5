"""Every kind of index among some of its vectors: k of them or all there are, never one that is not allowed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.evaluation.metrics import index_recall_at_k
from retrieval.search.engines import engine
from retrieval.search.engines.faiss_factory import Approximate
from retrieval.search.engines.faiss_selecting import selecting
from retrieval.search.index import Searcher
from tests.support.vectors import brute_force, clustered, index_of

EXACT = ["Flat", "KDTree"]
KEEPS_VECTORS = ["IVF8,Flat", "HNSW8", "IVF8,PQ8x4,RFlat", "IVF8,PQ8x4fs,RFlat", "HNSW8,RFlat"]
KEEPS_CODES = [
    "SQ8",
    "PQ8x4",
    "PQ8x4fs",
    "IVF8,PQ8x4",
    "IVF8,SQ8",
    "OPQ8,IVF8,PQ8x4",
    "PCA24,IVF8,Flat",
    "HNSW8_SQ8",
    "NSG8",
]
SHARES = (0.01, 0.1, 0.5, 0.95)


@pytest.fixture(params=["as measured", "index"])
def limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Once with the limits as they are, which scan a small gallery, and once where the index does all it can."""
    if request.param == "index":
        monkeypatch.setattr(engine, "SCAN_AT_MOST", 0)
        monkeypatch.setattr(engine, "SCAN_SHARE", 0.0)
    return request.param


def allowed_of(num: int, share: float) -> np.ndarray:
    return np.random.default_rng(7).random(num) < share


@pytest.mark.parametrize("factory", [*EXACT, *KEEPS_VECTORS, *KEEPS_CODES])
def test_k_of_those_that_are_allowed_or_all_there_are(tmp_path: Path, factory: str, limits: str) -> None:
    vectors, queries = clustered(600), clustered(6, seed=4)
    searcher = Searcher.open(index_of(tmp_path / "i", vectors, 2, factory=factory, nprobe=1))
    for share in (0.0, *SHARES):
        allowed = allowed_of(len(vectors), share)
        for k in (1, 10, 700):
            found = searcher.search(queries, k, allowed=allowed)
            assert found.rows.shape == (6, k)
            there = found.rows >= 0
            assert (there.sum(axis=1) == min(k, allowed.sum())).all(), (share, k)
            assert allowed[found.rows[there]].all()
            assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in found.rows)
            assert (found.scores[:, 1:] <= found.scores[:, :-1]).all()


@pytest.mark.parametrize("factory", EXACT)
@pytest.mark.parametrize("shards", [1, 3])
def test_exact_kinds_find_what_a_plain_sort_finds_with_ties(
    tmp_path: Path, factory: str, shards: int, limits: str
) -> None:
    vectors = clustered(400)
    vectors[200:260] = vectors[11]
    searcher = Searcher.open(index_of(tmp_path / "i", vectors, shards, factory=factory, leaf_size=8))
    queries = np.concatenate([vectors[11:12], clustered(20, seed=9)])
    for share in SHARES:
        rows = np.flatnonzero(allowed := allowed_of(len(vectors), share))
        for k in (1, 30, 100):
            want = [rows[one].tolist() for one in brute_force(queries, vectors[rows], k)]
            got = searcher.search(queries, k, allowed=allowed).rows
            assert [row[row >= 0].tolist() for row in got] == want


@pytest.mark.parametrize("factory", [*EXACT, *KEEPS_VECTORS])
@pytest.mark.parametrize("share", SHARES[:3])
def test_as_served_an_index_that_keeps_its_vectors_loses_no_neighbour(
    tmp_path: Path, factory: str, share: float
) -> None:
    vectors, queries = clustered(2000), clustered(20, seed=5)
    allowed = allowed_of(len(vectors), share)
    exact = Searcher.open(index_of(tmp_path / "flat", vectors, 1)).search(queries, 10, allowed=allowed)
    found = Searcher.open(index_of(tmp_path / "i", vectors, 2, factory=factory, nprobe=1)).search(
        queries, 10, allowed=allowed
    )
    assert index_recall_at_k(found.rows, exact.rows) == 1.0


@pytest.mark.parametrize("factory", ["IVF8,Flat", "HNSW8", "IVF8,PQ8x4,RFlat", "OPQ8,IVF8,PQ8x4", "SQ8"])
def test_the_selector_reaches_the_innermost_layer_and_the_index_looks_as_hard_as_before(
    tmp_path: Path, factory: str
) -> None:
    vectors, queries = clustered(600), clustered(10, seed=4)
    (shard,) = Searcher.open(index_of(tmp_path / "i", vectors, 1, factory=factory, nprobe=3)).shards
    assert isinstance(shard.engine, Approximate)
    everything = shard.engine.index.search(queries, 5, params=selecting(shard.engine.index, np.ones(600, bool)))
    assert everything[1].tolist() == shard.engine.index.search(queries, 5)[1].tolist()
    allowed = allowed_of(600, 0.3)
    some = shard.engine.index.search(queries, 5, params=selecting(shard.engine.index, allowed))[1]
    assert allowed[some[some >= 0]].all()
