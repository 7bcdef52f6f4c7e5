"""Sharded search equals unsharded equals a plain sort, ties included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.index import IDS
from retrieval.search import ranking
from retrieval.search.index import Searcher, Shard, build_shard, flat_search, train_index
from retrieval.search.settings import IndexConfig
from tests.support.vectors import DIM, brute_force, clustered, index_of


@pytest.fixture(scope="module")
def tied() -> np.ndarray:
    """400 vectors with copies: a pair, a run of 60 that straddles every k, and zero vectors."""
    vectors = clustered(400)
    vectors[300] = vectors[11]
    vectors[200:260] = vectors[11]
    vectors[[5, 390]] = 0
    return vectors


@pytest.mark.parametrize("factory", ["Flat", "KDTree"])
@pytest.mark.parametrize("shards", [1, 3, 8])
def test_exact_search_equals_brute_force_with_ties(tmp_path: Path, tied: np.ndarray, factory: str, shards: int) -> None:
    searcher = Searcher.open(index_of(tmp_path / "i", tied, shards, factory=factory, leaf_size=16))
    queries = np.concatenate([tied[[11, 5, 0, 100]], clustered(30, seed=9)])
    for k in (1, 5, 40, 100):
        assert searcher.search(queries, k).rows.tolist() == brute_force(queries, tied, k)


@pytest.mark.parametrize("num_queries", [1, 19, 20, 700])  # FAISS takes another road from 20 queries on
def test_scores_and_rows_are_the_same_to_the_bit_however_sharded(tmp_path: Path, num_queries: int) -> None:
    vectors = clustered(5000, 128)
    vectors[4000:4050] = vectors[7]
    queries = np.concatenate([vectors[7:8], clustered(num_queries - 1, 128, seed=3)])
    whole = Searcher.open(index_of(tmp_path / "1", vectors, 1)).search(queries, 20)
    for shards in (3, 8):
        found = Searcher.open(index_of(tmp_path / str(shards), vectors, shards)).search(queries, 20)
        assert (found.rows == whole.rows).all()
        assert (found.scores == whole.scores).all()
    assert whole.rows[0].tolist() == [7, *range(4000, 4019)]


def test_vectors_of_any_length_are_ranked_by_inner_product(tmp_path: Path) -> None:
    vectors = clustered(500) * np.random.default_rng(5).uniform(0.1, 30, size=(500, 1)).astype(np.float32)
    queries = clustered(10, seed=6) * 7
    for factory in ("Flat", "KDTree"):
        searcher = Searcher.open(index_of(tmp_path / factory, vectors, 2, factory=factory, leaf_size=8))
        assert searcher.search(queries, 15).rows.tolist() == brute_force(queries, vectors, 15)


def test_leave_one_out_drops_the_query_itself_even_among_its_copies(tmp_path: Path, tied: np.ndarray) -> None:
    searcher = Searcher.open(index_of(tmp_path / "i", tied, 3))
    rows = np.array([11, 230, 300, 0, -1])
    found = searcher.search(tied[rows], 7, exclude_rows=rows)
    for query, row, mine in zip(tied[rows], rows, found.rows, strict=True):
        assert mine.tolist() == [other for other in brute_force(query[None], tied, 8)[0] if other != row][:7]


def test_k_beyond_the_gallery_is_padded(tmp_path: Path) -> None:
    vectors = clustered(12)
    for factory in ("Flat", "KDTree", "HNSW8"):
        found = Searcher.open(index_of(tmp_path / factory, vectors, 3, factory=factory)).search(vectors[:2], 15)
        assert found.rows.shape == (2, 15)
        assert sorted(found.rows[0].tolist()) == [-1, -1, -1, *range(12)]
        assert (found.scores[:, 12:] == -np.inf).all()


def test_no_queries_give_no_results(tmp_path: Path) -> None:
    for factory in ("Flat", "KDTree"):
        found = Searcher.open(index_of(tmp_path / factory, clustered(12), 2, factory=factory)).search(
            np.empty((0, DIM), np.float32), 3
        )
        assert found.rows.shape == found.scores.shape == (0, 3)


def test_unusable_vectors_and_settings_are_refused() -> None:
    config = IndexConfig()
    trained = train_index(config, np.empty((0, DIM), np.float32))
    with pytest.raises(ValueError, match="trained on 32-dimensional embeddings, got 16"):
        build_shard(config, trained, clustered(5, 16), np.arange(5))
    with pytest.raises(ValueError, match="distinct"):
        build_shard(config, trained, clustered(3), np.array([0, 1, 1]))
    with pytest.raises(ValueError, match="1 of 3 embeddings hold NaN"):
        build_shard(config, trained, clustered(3) * np.array([[1], [np.nan], [1]]), np.arange(3))
    with pytest.raises(ValueError, match=r"got shapes \(3, 32\) and \(2,\)"):
        build_shard(config, trained, clustered(3), np.arange(2))
    with pytest.raises(ValueError, match="nprobe is 0"):
        IndexConfig(nprobe=0)


def test_unusable_queries_are_refused(tmp_path: Path) -> None:
    searcher = Searcher.open(index_of(tmp_path / "i", clustered(20), 1))
    with pytest.raises(ValueError, match="32-dimensional"):
        searcher.search(np.ones((1, 16), np.float32), 3)
    with pytest.raises(ValueError, match="k is 0"):
        searcher.search(clustered(1), 0)


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "KDTree"])
@pytest.mark.parametrize("mmap", [True, False])
def test_a_broken_shard_is_named(tmp_path: Path, factory: str, mmap: bool) -> None:
    folder = index_of(tmp_path / "i", clustered(200), 1, factory=factory)
    (name,) = [name for name in folder.list() if name.startswith("shard-")]
    folder.write_bytes(name, folder.read_bytes(name)[:500])
    with pytest.raises(ValueError, match=f"{name} is not a whole index shard"):
        Shard.load(folder, name, mmap=mmap)


def test_a_missing_shard_is_noticed(tmp_path: Path) -> None:
    folder = index_of(tmp_path / "i", clustered(40), 2)
    folder.write_table(IDS, folder.read_table(IDS).slice(1))
    with pytest.raises(ValueError, match="hold 40 of 39 images"):
        Searcher.open(folder)


def test_large_k_works_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered(900)
    searcher = Searcher.open(index_of(tmp_path / "i", vectors, 2))
    whole = searcher.search(vectors[:50], 800)
    monkeypatch.setattr(ranking, "_BLOCK_ELEMENTS", 1000)
    monkeypatch.setattr("retrieval.search.index._QUERY_BLOCK", 7)
    assert (searcher.search(vectors[:50], 800).rows == whole.rows).all()


def test_a_search_in_memory_equals_one_of_a_flat_index_to_the_bit(tmp_path: Path, tied: np.ndarray) -> None:
    on_disk = Searcher.open(index_of(tmp_path / "i", tied, 3))
    queries = np.concatenate([tied[[11, 5, 0]], clustered(30, seed=9)])
    for k in (1, 5, 100, 500):
        found, want = flat_search(tied)(queries, k), on_disk.search(queries, k)
        assert np.array_equal(found.rows, want.rows)
        assert np.array_equal(found.scores, want.scores)
    with pytest.raises(ValueError, match="1 of 400 embeddings hold NaN"):
        flat_search(np.where(np.arange(400)[:, None] == 7, np.nan, tied))
    with pytest.raises(ValueError, match="n > 0"):
        flat_search(tied[:0])
