"""Sharded search equals unsharded equals a plain sort, ties included; approximate indexes find most of it."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import begin, seal
from retrieval.evaluation.metrics import index_recall_at_k
from retrieval.search import ranking
from retrieval.search.index import IDS, Searcher, Shard, build_shard, flat_search, train_index
from retrieval.search.settings import IndexConfig

DIM = 32


def clustered(num: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """(num, dim) float32, L2-normalised, ten to a cluster, like embeddings of people."""
    rng = np.random.default_rng(seed)
    vectors = np.repeat(rng.normal(size=(-(-num // 10), dim)), 10, axis=0)[:num] + 0.4 * rng.normal(size=(num, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def brute_force(queries: np.ndarray, vectors: np.ndarray, k: int) -> list[list[int]]:
    """Sort every pair by (score, row) in Python, each score summed alone."""
    out = []
    for query in queries.astype(np.float64):
        scores = [np.float32((query * vector).sum()) for vector in vectors.astype(np.float64)]
        out.append(sorted(range(len(vectors)), key=lambda row: (-scores[row], row))[:k])
    return out


def make_index(
    folder: Path, vectors: np.ndarray, shards: int, sample: np.ndarray | None = None, **settings: object
) -> Folder:
    """A sealed index folder whose rows are dealt to shards at random."""
    config, out = IndexConfig(**settings), Folder.of(folder)  # type: ignore[arg-type]
    begin(out, kind="index", config=config, inputs={})
    trained = train_index(config, vectors if sample is None else sample)
    dealt = np.random.default_rng(1).permutation(len(vectors))
    for shard, rows in enumerate(np.array_split(dealt, shards)):
        suffix = "kdtree" if config.factory == "KDTree" else "faiss"
        out.write_bytes(f"shard-{shard:05d}.{suffix}", build_shard(config, trained, vectors[rows], rows))
    num = len(vectors)
    table = {"image_id": [f"{i:06d}.jpg" for i in range(num)], "label": [str(i // 10) for i in range(num)]}
    table |= {"part": np.zeros(num, np.int32), "row_in_part": np.arange(num, dtype=np.int32)}
    out.write_table(IDS, pa.table(table))
    seal(out, kind="index", config=config, inputs={}, counts={})
    return out


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
    searcher = Searcher.open(make_index(tmp_path / "i", tied, shards, factory=factory, leaf_size=16))
    queries = np.concatenate([tied[[11, 5, 0, 100]], clustered(30, seed=9)])
    for k in (1, 5, 40, 100):
        assert searcher.search(queries, k).rows.tolist() == brute_force(queries, tied, k)


@pytest.mark.parametrize("num_queries", [1, 19, 20, 700])  # FAISS takes another road from 20 queries on
def test_scores_and_rows_are_the_same_to_the_bit_however_sharded(tmp_path: Path, num_queries: int) -> None:
    vectors = clustered(5000, 128)
    vectors[4000:4050] = vectors[7]
    queries = np.concatenate([vectors[7:8], clustered(num_queries - 1, 128, seed=3)])
    whole = Searcher.open(make_index(tmp_path / "1", vectors, 1)).search(queries, 20)
    for shards in (3, 8):
        found = Searcher.open(make_index(tmp_path / str(shards), vectors, shards)).search(queries, 20)
        assert (found.rows == whole.rows).all()
        assert (found.scores == whole.scores).all()
    assert whole.rows[0].tolist() == [7, *range(4000, 4019)]


def test_flat_looks_deeper_when_near_ties_reach_past_what_was_proposed(tmp_path: Path) -> None:
    """Vectors whose scores differ by less than float32 products can tell: the fixed score alone decides."""
    rng = np.random.default_rng(4)
    base = clustered(1, 128)[0]
    vectors = (base + 2e-8 * rng.normal(size=(600, 128))).astype(np.float32)
    found = Searcher.open(make_index(tmp_path / "i", vectors, 3)).search(base, 10)
    assert found.rows.tolist() == brute_force(base[None], vectors, 10)


def test_vectors_of_any_length_are_ranked_by_inner_product(tmp_path: Path) -> None:
    vectors = clustered(500) * np.random.default_rng(5).uniform(0.1, 30, size=(500, 1)).astype(np.float32)
    queries = clustered(10, seed=6) * 7
    for factory in ("Flat", "KDTree"):
        searcher = Searcher.open(make_index(tmp_path / factory, vectors, 2, factory=factory, leaf_size=8))
        assert searcher.search(queries, 15).rows.tolist() == brute_force(queries, vectors, 15)


def test_leave_one_out_drops_the_query_itself_even_among_its_copies(tmp_path: Path, tied: np.ndarray) -> None:
    searcher = Searcher.open(make_index(tmp_path / "i", tied, 3))
    rows = np.array([11, 230, 300, 0, -1])
    found = searcher.search(tied[rows], 7, exclude_rows=rows)
    for query, row, mine in zip(tied[rows], rows, found.rows, strict=True):
        assert mine.tolist() == [other for other in brute_force(query[None], tied, 8)[0] if other != row][:7]


def test_k_beyond_the_gallery_is_padded(tmp_path: Path) -> None:
    vectors = clustered(12)
    for factory in ("Flat", "KDTree", "HNSW8"):
        found = Searcher.open(make_index(tmp_path / factory, vectors, 3, factory=factory)).search(vectors[:2], 15)
        assert found.rows.shape == (2, 15)
        assert sorted(found.rows[0].tolist()) == [-1, -1, -1, *range(12)]
        assert (found.scores[:, 12:] == -np.inf).all()


def test_no_queries_give_no_results(tmp_path: Path) -> None:
    for factory in ("Flat", "KDTree"):
        found = Searcher.open(make_index(tmp_path / factory, clustered(12), 2, factory=factory)).search(
            np.empty((0, DIM), np.float32), 3
        )
        assert found.rows.shape == found.scores.shape == (0, 3)


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
    exact = Searcher.open(make_index(tmp_path / "flat", vectors, 1)).search(queries, 10)
    folder = make_index(tmp_path / "it", vectors, 3, factory=factory, nprobe=12, refine_factor=10)
    found = Searcher.open(folder, mmap=mmap).search(queries, 10)
    assert index_recall_at_k(found.rows, exact.rows) >= least
    assert (np.diff(found.scores, axis=1) <= 0).all()


def test_knobs_are_kept_in_the_file(tmp_path: Path) -> None:
    vectors, queries = clustered(3000), clustered(100, seed=8)
    exact = Searcher.open(make_index(tmp_path / "flat", vectors, 1)).search(queries, 10)
    recall = {}
    for name, settings in {
        "probe 1": {"factory": "IVF64,Flat", "nprobe": 1},
        "probe all": {"factory": "IVF64,Flat", "nprobe": 64},
        "visit 1": {"factory": "KDTree", "max_visits": 1},
        "visit all": {"factory": "KDTree"},
    }.items():
        found = Searcher.open(make_index(tmp_path / name, vectors, 1, **settings)).search(queries, 10)
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
    searcher = Searcher.open(make_index(tmp_path / "i", clustered(20), 1))
    with pytest.raises(ValueError, match="32-dimensional"):
        searcher.search(np.ones((1, 16), np.float32), 3)
    with pytest.raises(ValueError, match="k is 0"):
        searcher.search(clustered(1), 0)


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "KDTree"])
@pytest.mark.parametrize("mmap", [True, False])
def test_a_broken_shard_is_named(tmp_path: Path, factory: str, mmap: bool) -> None:
    folder = make_index(tmp_path / "i", clustered(200), 1, factory=factory)
    (name,) = [name for name in folder.list() if name.startswith("shard-")]
    folder.write_bytes(name, folder.read_bytes(name)[:500])
    with pytest.raises(ValueError, match=f"{name} is not a whole index shard"):
        Shard.load(folder, name, mmap=mmap)


def test_a_missing_shard_is_noticed(tmp_path: Path) -> None:
    folder = make_index(tmp_path / "i", clustered(40), 2)
    folder.write_table(IDS, folder.read_table(IDS).slice(1))
    with pytest.raises(ValueError, match="hold 40 of 39 images"):
        Searcher.open(folder)


def test_large_k_works_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered(900)
    searcher = Searcher.open(make_index(tmp_path / "i", vectors, 2))
    whole = searcher.search(vectors[:50], 800)
    monkeypatch.setattr(ranking, "_BLOCK_ELEMENTS", 1000)
    monkeypatch.setattr("retrieval.search.index._QUERY_BLOCK", 7)
    assert (searcher.search(vectors[:50], 800).rows == whole.rows).all()


def test_opening_sets_the_thread_count(tmp_path: Path) -> None:
    folder = make_index(tmp_path / "i", clustered(20), 1)
    Searcher.open(folder, num_threads=2)
    assert faiss.omp_get_max_threads() == 2
    Searcher.open(folder)
    assert faiss.omp_get_max_threads() == 1


def test_a_search_in_memory_equals_one_of_a_flat_index_to_the_bit(tmp_path: Path, tied: np.ndarray) -> None:
    on_disk = Searcher.open(make_index(tmp_path / "i", tied, 3))
    queries = np.concatenate([tied[[11, 5, 0]], clustered(30, seed=9)])
    for k in (1, 5, 100, 500):
        found, want = flat_search(tied)(queries, k), on_disk.search(queries, k)
        assert np.array_equal(found.rows, want.rows)
        assert np.array_equal(found.scores, want.scores)
    with pytest.raises(ValueError, match="1 of 400 embeddings hold NaN"):
        flat_search(np.where(np.arange(400)[:, None] == 7, np.nan, tied))
    with pytest.raises(ValueError, match="n > 0"):
        flat_search(tied[:0])
