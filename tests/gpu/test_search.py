"""FAISS on a GPU finds what it finds on the CPU, whoever asks beside whom. Needs only retrieval/ and FAISS."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.evaluation.metrics import index_recall_at_k
from retrieval.search.engines.faiss_factory import Approximate
from retrieval.search.index import Shard, build_shard, train_index
from retrieval.search.ranking import scan
from retrieval.search.settings import IndexConfig

pytestmark = pytest.mark.skipif(
    not hasattr(faiss, "StandardGpuResources"),
    reason="faiss-cpu is installed, the only FAISS that pyproject.toml names for this platform",
)


def draw(num: int, dim: int = 64) -> np.ndarray:
    """(num, dim) float32, normalised, with a tenth of them written twice so that there are ties."""
    vectors = np.random.default_rng(0).normal(size=(num, dim)).astype(np.float32)
    vectors[num // 2 : num // 2 + num // 10] = vectors[: num // 10]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def opened(tmp_path: Path, config: IndexConfig, vectors: np.ndarray, name: str = "shard.faiss") -> Shard:
    folder = Folder.of(str(tmp_path))
    folder.write_bytes(name, build_shard(config, train_index(config, vectors), vectors, np.arange(len(vectors))))
    return Shard.load(folder, name)


def test_faiss_sees_the_gpu_that_pytorch_sees() -> None:
    """Without it the tests below would be of the CPU."""
    assert faiss.get_num_gpus() > 0


def test_flat_on_a_gpu_is_exact(tmp_path: Path) -> None:
    vectors = draw(20_000)
    shard = opened(tmp_path, IndexConfig(factory="Flat"), vectors)
    for k in (1, 10, 1000, 3000):  # the last is more than a GPU gives
        expected = scan(vectors[:32], vectors, k)
        found = shard.search(vectors[:32], k)
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.scores, expected.scores)


def test_lists_on_a_gpu_find_what_they_find_on_the_cpu(tmp_path: Path) -> None:
    vectors = draw(20_000)
    shard = opened(tmp_path, IndexConfig(factory="IVF64,Flat", nprobe=8), vectors)
    engine = shard.engine
    assert isinstance(engine, Approximate)
    assert engine.gpu is not None
    _, on_cpu = engine.index.search(vectors[:256], 10)
    assert index_recall_at_k(shard.search(vectors[:256], 10).rows, on_cpu) >= 0.99


def test_many_threads_ask_several_shards_at_once(tmp_path: Path) -> None:
    vectors = draw(20_000)
    halves = np.split(vectors, 2)
    shards = [opened(tmp_path, IndexConfig(factory="Flat"), half, f"{i}.faiss") for i, half in enumerate(halves)]
    queries = [vectors[start : start + 1 + start % 7] for start in range(0, 4000, 20)]
    expected = [[shard.search(some, 10).rows for shard in shards] for some in queries]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda some: [shard.search(some, 10).rows for shard in shards], queries))
    for got, wanted in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(got[0], wanted[0])
        np.testing.assert_array_equal(got[1], wanted[1])
