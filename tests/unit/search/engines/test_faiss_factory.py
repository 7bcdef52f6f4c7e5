"""Indexes of FAISS: exact where they say so, near where they do not, and what settings do to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.evaluation.metrics import index_recall_at_k
from retrieval.search.engines import faiss_factory
from retrieval.search.engines.faiss_factory import Approximate, Flat
from retrieval.search.index import Searcher, Shard, build_shard, train_index
from retrieval.search.settings import IndexConfig
from tests.support.vectors import DIM, brute_force, clustered, index_of


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


def layer_of(folder: Path, vectors: np.ndarray, **settings: object) -> list[Any]:
    """The layers of the only shard of an index that was built, written and opened."""
    (shard,) = Searcher.open(index_of(folder, vectors, 1, None, **settings)).shards
    engine = shard.engine
    assert isinstance(engine, Approximate)
    KEPT.append(engine)  # whose layers they are: it must live as long
    return faiss_factory.layers(engine.index)


KEPT: list[object] = []


def test_every_knob_reaches_the_layer_it_is_for(tmp_path: Path) -> None:
    vectors = clustered(600)
    refined = layer_of(tmp_path / "r", vectors, factory="IVF8,PQ8x4fs,RFlat", nprobe=3, refine_factor=7)
    assert isinstance(refined[0], faiss.IndexRefine) and refined[0].k_factor == 7
    assert [layer.nprobe for layer in refined if isinstance(layer, faiss.IndexIVF)] == [3]
    (inverted, *_) = layer_of(tmp_path / "i", vectors, factory="IVF8,Flat", nprobe=99)
    assert inverted.nprobe == 8
    (graph, *_) = layer_of(tmp_path / "h", vectors, factory="HNSW8", ef_search=123)
    assert graph.hnsw.efSearch == 123
    inside = layer_of(tmp_path / "p", vectors, factory="PCA16,IVF8_HNSW4,Flat", nprobe=2, ef_search=45)
    assert [layer.nprobe for layer in inside if isinstance(layer, faiss.IndexIVF)] == [2]
    assert [layer.hnsw.efSearch for layer in inside if isinstance(layer, faiss.IndexHNSW)] == [45]


def test_the_seed_draws_other_centroids() -> None:
    vectors = clustered(400)
    trained = [train_index(IndexConfig(factory="IVF8,Flat", seed=seed), vectors) for seed in (0, 0, 1)]
    assert trained[0] == trained[1] != trained[2]


@pytest.mark.parametrize(
    ("factory", "least"),
    [("Flat", 1), ("HNSW8", 1), ("IVF12,Flat", 12), ("PQ8x4", 16), ("IVF4,PQ8x4", 16), ("IVF64,PQ8x4fs,RFlat", 64)],
)
def test_the_least_sample_is_the_largest_number_of_centroids(factory: str, least: int) -> None:
    config = IndexConfig(factory=factory)
    assert faiss_factory.num_centroids(faiss_factory.empty_index(config, DIM)) == least
    if least > 1:
        train_index(config, clustered(least))
        with pytest.raises(ValueError, match=f"at least {least} training .*about {39 * least} to be.*got {least - 1}"):
            train_index(config, clustered(least - 1))


@pytest.mark.parametrize("num", [1, 50])
def test_scores_are_inner_products(tmp_path: Path, num: int) -> None:
    """Of vectors of any length: the longest wins over the nearest."""
    vectors = clustered(200) * np.linspace(1, 9, 200, dtype=np.float32)[:, None]
    queries = clustered(num, seed=3)
    for factory in ("HNSW16", "IVF1,Flat"):
        found = Searcher.open(index_of(tmp_path / factory, vectors, 1, factory=factory)).search(queries, 1)
        best = (queries @ vectors.T).max(axis=1)
        assert np.mean(np.isclose(found.scores[:, 0], best, rtol=1e-4)) > 0.9


def test_equal_scores_of_approximate_indexes_are_in_order_of_row(tmp_path: Path) -> None:
    vectors = clustered(60)
    vectors[20:50] = vectors[7]
    searcher = Searcher.open(index_of(tmp_path / "i", vectors, 3, factory="IVF1,Flat"))
    found = searcher.search(vectors[7], 31).rows[0]
    assert found.tolist() == [7, *range(20, 50)]


@pytest.mark.parametrize("factory", ["Flat", "IVF3,Flat", "HNSW8", "PQ8x4,RFlat", "IVF2,PQ8x4fs,RFlat"])
@pytest.mark.parametrize("mmap", [True, False])
def test_vectors_come_back_exactly_as_they_were_added(tmp_path: Path, factory: str, mmap: bool) -> None:
    vectors = clustered(90)
    for shard in Searcher.open(index_of(tmp_path / "i", vectors, 2, factory=factory), mmap=mmap).shards:
        local = np.array([5, 0, 44, 5])
        got = shard.engine.vectors_of(local)
        assert got is not None
        assert np.array_equal(got, vectors[shard.rows[local]])
        none = shard.engine.vectors_of(local[:0])
        assert none is not None and none.shape == (0, DIM)


@pytest.mark.parametrize(
    "factory", ["PQ8x4", "IVF2,PQ8x4", "SQ8", "PCA16,Flat", "IVF2,SQ8", "HNSW8,PQ8x4", "IVF2,PQ8x4fs"]
)
def test_codes_are_not_taken_for_vectors(tmp_path: Path, factory: str) -> None:
    (shard,) = Searcher.open(index_of(tmp_path / "i", clustered(300), 1, factory=factory)).shards
    assert shard.engine.vectors_of(np.array([0])) is None
    assert shard.engine.vectors_of(np.empty(0, np.int64)) is None


def test_the_table_that_finds_vectors_of_an_inverted_file_is_made_when_it_is_needed(tmp_path: Path) -> None:
    (shard,) = Searcher.open(index_of(tmp_path / "i", clustered(50), 1, factory="IVF3,Flat")).shards
    engine = shard.engine
    assert isinstance(engine, Approximate)
    engine.vectors_of(np.empty(0, np.int64))
    assert engine.index.direct_map.type == faiss.DirectMap.NoMap
    engine.vectors_of(np.array([1]))
    assert engine.index.direct_map.type == faiss.DirectMap.Array


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat"])
def test_an_index_in_an_object_store_is_read_whole(factory: str, bucket: Folder) -> None:
    config, vectors = IndexConfig(factory=factory), clustered(100)
    folder = bucket / "index"
    folder.write_bytes("shard-0.faiss", build_shard(config, train_index(config, vectors), vectors, np.arange(100) * 2))
    shard = Shard.load(folder, "shard-0.faiss")
    assert shard.rows.tolist() == list(range(0, 200, 2))
    assert shard.search(vectors[30], 1).rows.tolist() == [[60]]


def test_a_shard_stays_on_the_disk_unless_asked_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, flags = index_of(tmp_path / "i", clustered(40), 1), []
    read = faiss.read_index
    monkeypatch.setattr(faiss, "read_index", lambda path, *flag: (flags.append(flag), read(path, *flag))[1])
    for mmap in (True, False):
        Shard.load(folder, "shard-00000.faiss", mmap=mmap)
    assert flags == [(faiss.IO_FLAG_MMAP_IFC,), ()]


def test_flat_proposes_deeper_and_deeper_until_it_is_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """All 3000 vectors nearly tie: nothing but all of them is enough, and each query stops when it is sure."""
    rng = np.random.default_rng(4)
    base = clustered(1)[0]
    near = (base + 2e-8 * rng.normal(size=(3000, DIM))).astype(np.float32)
    engine, widths = Flat.of(near), []
    propose = Flat.propose

    def watched(self: Flat, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        widths.append((len(queries), k))
        return propose(self, queries, k)

    monkeypatch.setattr(Flat, "propose", watched)
    found = engine.search(base[None], 10)
    assert found.rows.tolist() == brute_force(base[None], near, 10)
    assert widths == [(1, 27), (1, 108), (1, 432), (1, 1728), (1, 3000)]
    widths.clear()
    vectors = np.concatenate([clustered(500, seed=2), near[:300]])
    queries = np.stack([base, vectors[3]])
    assert Flat.of(vectors).search(queries, 10).rows.tolist() == brute_force(queries, vectors, 10)
    assert widths[0] == (2, 27) and {num for num, _ in widths[1:]} == {1}


def test_the_largest_norm_is_of_all_blocks() -> None:
    vectors = np.ones((10, 4), np.float32)
    vectors[7] = 5
    for block in (1, 3, 8, 100):
        assert faiss_factory.max_norm(vectors, block) == pytest.approx(10, rel=1e-5)
        assert faiss_factory.max_norm(vectors, block) >= 10
    assert faiss_factory.max_norm(vectors[:0]) == 0


@pytest.mark.parametrize(
    ("factory", "dim", "sample"),
    [
        *[("Flat", 128, 0), ("HNSW8", 128, 0), ("SQ8", 128, 1 << 16), ("IVF16,PQ8x4", 128, 1 << 16)],
        *[("IVF256,Flat", 128, 256 * 256), ("IVF1024,Flat", 128, 1024 * 256), ("IVF4096,PQ16", 128, 4096 * 256)],
        *[("IVF4096,Flat", 2048, 4096 * 128), ("IVF65536,Flat", 2048, 65536 * 39)],
    ],
)
def test_the_sample_grows_with_the_lists(factory: str, dim: int, sample: int) -> None:
    """256 a list, fewer where that is more than 4 GiB, never fewer than 39; what is asked for instead is kept to."""
    assert faiss_factory.sample_size(IndexConfig(factory=factory), dim) == sample
    assert faiss_factory.sample_size(IndexConfig(factory=factory, train_sample=77), dim) == (77 if sample else 0)


def test_threads_train_the_same_index() -> None:
    config, vectors = IndexConfig(factory="IVF8,PQ8x4"), clustered(2000)
    assert train_index(config, vectors, 1) == train_index(config, vectors, 2)
