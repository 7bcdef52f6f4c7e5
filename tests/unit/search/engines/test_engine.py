"""A kind of index is found by looking through the folder, and used by all that handles indexes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval.search import engines
from retrieval.search.engines import faiss_factory, kdtree
from retrieval.search.engines.engine import is_scanned, kind_of, kind_of_file, kinds
from retrieval.search.index import Searcher, sample_size
from retrieval.search.settings import IndexConfig
from retrieval.search.shards import num_shards
from tests.support.vectors import DIM, brute_force, clustered, index_of

BACKWARDS = """
import numpy as np
from retrieval.search.engines.engine import Kind
from retrieval.search.ranking import top_k

class Plain:
    def __init__(self, vectors, most):
        self.vectors, self.most, self.dim = vectors, most, vectors.shape[1]
    def search(self, queries, k, allowed=None):
        scores = queries @ self.vectors.T
        rows = np.broadcast_to(np.arange(len(self.vectors)), scores.shape)
        rows = rows if allowed is None else np.where(allowed, rows, -1)
        return top_k(scores[:, :self.most], rows[:, :self.most], k)
    def vectors_of(self, local):
        return None

def build(config, trained, blocks):
    assert trained == b"sample of 12"
    most, rows = int(config.factory.removeprefix("Plain")), blocks.rows
    vectors = blocks.fill(np.empty((len(rows), blocks.dim), np.float32))
    data = np.concatenate([[len(rows), most], rows, vectors.ravel()]).astype(np.float64).tobytes()
    return lambda file: file.write(data)

def load(folder, name, num_threads, mmap):
    (num, most, *rest) = np.frombuffer(folder.read_bytes(name), np.float64)
    num = int(num)
    return Plain(np.array(rest[num:], np.float32).reshape(num, -1), int(most)), np.array(rest[:num], np.int64)

KIND = Kind(factory=r"Plain\\d+", suffix=".plain", build=build, load=load,
            train=lambda config, sample, threads: f"sample of {len(sample)}".encode(),
            sample_size=lambda config, dim: 12)
"""


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One more file in the folder, for the length of a test."""
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines/plain.py").write_text(BACKWARDS)
    monkeypatch.setattr(engines, "__path__", [*engines.__path__, str(tmp_path / "engines")])
    kinds.cache_clear()
    yield
    kinds.cache_clear()
    del sys.modules["retrieval.search.engines.plain"]


def test_a_new_kind_is_one_file(plain: None, tmp_path: Path) -> None:
    vectors = clustered(12)
    folder = index_of(tmp_path / "i", vectors, 2, factory="Plain99")
    assert [name for name in folder.list() if name.endswith(".plain")] == ["shard-00000.plain", "shard-00001.plain"]
    searcher = Searcher.open(folder)
    assert searcher.search(vectors, 12).rows.tolist() == brute_force(vectors, vectors, 12)
    few = Searcher.open(index_of(tmp_path / "few", vectors, 1, factory="Plain3"))
    assert set(few.search(vectors, 5).rows.ravel().tolist()) == {0, 1, 2, -1}
    assert sample_size(IndexConfig(factory="Plain99"), DIM)
    assert num_shards(IndexConfig(factory="Plain99", num_shards=2), 12, DIM) == 2


def test_factory_strings_find_their_kind(plain: None) -> None:
    assert kind_of("KDTree") is kdtree.KIND
    for factory in ("Flat", "IVF4,PQ8", "KDTrees", "aKDTree", "kdtree", "Plain", "Plain3,Flat", ""):
        assert kind_of(factory) is faiss_factory.KIND, factory
    assert kind_of("Plain12").suffix == ".plain"


def test_files_find_their_kind_and_no_two_kinds_share_an_ending() -> None:
    assert kind_of_file("shard-00000.kdtree") is kdtree.KIND
    assert kind_of_file("shard-00000.faiss") is faiss_factory.KIND
    with pytest.raises(ValueError, match=r"'shard-00000.bin'.*\.kdtree"):
        kind_of_file("shard-00000.bin")
    endings = [kind.suffix for kind in kinds()]
    assert len(set(endings)) == len(endings)
    assert [kind.factory for kind in kinds()].count(None) == 1
    assert kinds()[-1].factory is None


def test_kinds_that_start_from_nothing_need_no_sample() -> None:
    assert not sample_size(IndexConfig(factory="KDTree"), DIM)
    assert kind_of("KDTree").train is None
    assert not sample_size(IndexConfig(), DIM)
    assert sample_size(IndexConfig(factory="IVF2,Flat"), DIM)
    with pytest.raises(ValueError, match="could not parse"):
        sample_size(IndexConfig(factory="Flatt"), DIM)


def test_few_are_scanned_and_nearly_all_are_not() -> None:
    assert is_scanned(100_000, 200_000) and not is_scanned(100_001, 200_000)
    assert is_scanned(500_000, 5_000_000) and not is_scanned(500_001, 5_000_000)
    assert is_scanned(75, 100) and not is_scanned(76, 100)
