"""Sharded search equals unsharded equals a plain sort, ties included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import IDS
from retrieval.artifacts.manifest import MANIFEST
from retrieval.search import ranking
from retrieval.search.engines.engine import kind_of
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


def test_an_index_tells_which_image_is_which_row(tmp_path: Path) -> None:
    searcher = Searcher.open(index_of(tmp_path / "i", clustered(25), 3))
    assert len(searcher) == 25
    assert searcher.dim == DIM
    assert searcher.ids.tolist() == [f"{row:06d}.jpg" for row in range(25)]
    assert searcher.labels[19] == "1"
    assert (searcher.parts.tolist(), searcher.rows_in_part.tolist()) == ([0] * 25, list(range(25)))
    assert [len(shard.rows) for shard in searcher.shards] == [9, 8, 8]


def test_a_shard_keeps_its_rows_in_order_whatever_order_they_come_in(tmp_path: Path) -> None:
    vectors, rows = clustered(6), np.array([40, 7, 12, 3, 99, 8])
    for factory in ("Flat", "KDTree"):
        config, folder = IndexConfig(factory=factory, leaf_size=2), Folder.of(tmp_path)
        name = f"shard{kind_of(factory).suffix}"
        folder.write_bytes(name, build_shard(config, train_index(config, vectors), vectors, rows))
        shard = Shard.load(folder, name)
        assert shard.rows.tolist() == sorted(rows)
        assert shard.search(vectors, 1).rows[:, 0].tolist() == rows.tolist()
        copies = build_shard(config, train_index(config, vectors), vectors[[0] * 6], rows)
        folder.write_bytes(name, copies)
        assert Shard.load(folder, name).search(vectors[0], 4).rows.tolist() == [[3, 7, 8, 12]]


@pytest.mark.parametrize("rows", [[0, 1, -1], [0, 2, 2]])
def test_rows_are_distinct_and_not_negative(rows: list[int]) -> None:
    config = IndexConfig(factory="KDTree")
    with pytest.raises(ValueError, match="distinct and not negative"):
        build_shard(config, b"", clustered(3), np.array(rows))


def test_a_shard_is_not_built_of_nothing_or_of_infinite_values() -> None:
    config = IndexConfig(factory="KDTree")
    for bad in (np.empty((0, DIM), np.float32), np.empty(DIM, np.float32)):
        with pytest.raises(ValueError, match=r"n > 0; got shapes"):
            build_shard(config, b"", bad, np.arange(len(bad)))
    for bad in (np.inf, -np.inf, np.nan):
        with pytest.raises(ValueError, match="2 of 3 embeddings hold NaN or infinite"):
            build_shard(config, b"", clustered(3) * np.array([[bad], [1], [bad]]), np.arange(3))


def test_an_index_without_shards_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = index_of(tmp_path / "i", clustered(10), 2)
    with pytest.raises(ValueError, match="expected a 'index'"):
        other = Folder.of(tmp_path / "model")
        other.write_json(MANIFEST, {**folder.read_json(MANIFEST), "kind": "model"})
        Searcher.open(other)
    told = folder.read_json(MANIFEST)
    folder.write_json(MANIFEST, {**told, "files": {IDS: told["files"][IDS]}})
    with pytest.raises(ValueError, match="0 shards hold 0 of 10 images"):
        Searcher.open(folder)
    with pytest.raises(ValueError, match="No sealed index"):
        Searcher.open(tmp_path / "nothing")


def test_a_file_that_no_kind_writes_is_named(tmp_path: Path) -> None:
    Folder.of(tmp_path).write_bytes("shard-00000.bin", b"x")
    with pytest.raises(ValueError, match="shard-00000.bin is not a whole index shard .*no kind of index"):
        Shard.load(tmp_path, "shard-00000.bin")


def test_leave_one_out_looks_one_deeper_only_where_it_must(tmp_path: Path) -> None:
    vectors = clustered(6)
    searcher = Searcher.open(index_of(tmp_path / "i", vectors, 2))
    plain = searcher.search(vectors[:2], 6)
    left = searcher.search(vectors[:2], 5, exclude_rows=np.array([0, -1]))
    assert left.rows[0].tolist() == [row for row in plain.rows[0] if row != 0]
    assert left.rows[1].tolist() == plain.rows[1, :5].tolist()
    assert left.scores[1].tolist() == plain.scores[1, :5].tolist()
    with pytest.raises(ValueError, match="one row a query"):
        searcher.search(vectors[:2], 5, exclude_rows=np.array([0]))


def test_what_an_index_does_not_find_is_no_image(tmp_path: Path) -> None:
    """One leaf of two vectors is visited in each shard: the rest of the list is empty."""
    vectors = clustered(40)
    searcher = Searcher.open(index_of(tmp_path / "i", vectors, 2, factory="KDTree", leaf_size=2, max_visits=1))
    found = searcher.search(vectors[:5], 9)
    assert (found.rows[:, 0] == np.arange(5)).all()
    assert ((found.rows >= 0).sum(axis=1) <= 4).all()
    assert (found.scores[found.rows < 0] == -np.inf).all()
    assert all(len(set(rows[rows >= 0])) == (rows >= 0).sum() for rows in found.rows)
