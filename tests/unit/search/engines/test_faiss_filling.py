"""A FAISS index filled in blocks is the one that FAISS fills at once, and takes no more memory than it needs."""

from __future__ import annotations

import io
from typing import Any

import faiss
import numpy as np
import pytest

from retrieval.search.blocks import Blocks
from retrieval.search.engines.faiss_filling import build, fill, reserve
from retrieval.search.index import train_index
from retrieval.search.settings import IndexConfig
from tests.support.vectors import DIM, clustered

NUM = 1200


def trained(factory: str) -> bytes:
    return train_index(IndexConfig(factory=factory), clustered(NUM))


def empty(factory: str) -> Any:
    return faiss.deserialize_index(np.frombuffer(trained(factory), np.uint8))


@pytest.mark.parametrize("block", [1 << 12, 1 << 14, 1 << 30])
@pytest.mark.parametrize(
    "factory", ["Flat", "IVF8,Flat", "IVF8,PQ8x4", "IVF8,SQ8", "IVF8,PQ8x4fs,RFlat", "SQ8", "PQ8x4"]
)
def test_blocks_of_any_size_make_what_one_add_makes(factory: str, block: int) -> None:
    """Bytes and all; blocks of 32, 128 and all vectors. (What PCA or OPQ turns differs in the last bit.)"""
    vectors, whole, filled = clustered(NUM, seed=2), empty(factory), empty(factory)
    faiss.omp_set_num_threads(1)
    whole.add(vectors)
    fill(filled, Blocks.of(vectors, np.arange(NUM)), block)
    assert np.array_equal(faiss.serialize_index(filled), faiss.serialize_index(whole))


@pytest.mark.parametrize("factory", ["IVF8,Flat", "IVF8,SQ8"])
def test_lists_are_filled_as_vectors_lie_on_storage(factory: str) -> None:
    vectors, whole, filled = clustered(NUM, seed=2), empty(factory), empty(factory)
    whole.add(vectors)
    places = np.array_split(np.random.default_rng(0).permutation(NUM), 5)
    fill(filled, Blocks(np.arange(NUM), DIM, lambda: ((some, vectors[some]) for some in places)))
    whole.make_direct_map()
    filled.make_direct_map()
    assert np.array_equal(filled.reconstruct_n(0, NUM), whole.reconstruct_n(0, NUM))
    for index in (whole, filled):
        index.nprobe = 3
    assert np.array_equal(filled.search(clustered(50, seed=5), 4)[1], whole.search(clustered(50, seed=5), 4)[1])


def test_a_graph_built_in_blocks_finds_what_one_built_at_once_finds() -> None:
    """Its links are others: within one add FAISS goes from the top level down. Each block is such an add."""
    vectors, whole, filled = clustered(NUM, seed=2), empty("HNSW16"), empty("HNSW16")
    faiss.omp_set_num_threads(1)
    whole.add(vectors)
    fill(filled, Blocks.of(vectors, np.arange(NUM)), 1 << 14)
    queries = clustered(100, seed=5)
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :5]
    hits = [np.mean([len(set(a) & set(b)) for a, b in zip(index.search(queries, 5)[1], exact, strict=True)]) / 5
            for index in (whole, filled)]  # fmt: skip
    assert hits[1] > hits[0] - 0.02 > 0.9


def layer_with_codes(index: Any) -> Any:
    inside = faiss.downcast_index(index)
    if isinstance(inside, faiss.IndexHNSW):
        return faiss.downcast_index(inside.storage)
    return faiss.downcast_index(inside.refine_index) if isinstance(inside, faiss.IndexRefine) else inside


@pytest.mark.parametrize("factory", ["SQ8", "PQ8x4", "HNSW8", "SQ8,RFlat"])
def test_what_room_was_made_for_is_not_moved(factory: str) -> None:
    """Memory that had to grow would lie elsewhere afterwards."""
    index, vectors = empty(factory), clustered(NUM)
    reserve(index, NUM)
    codes = layer_with_codes(index).codes
    at = []
    for start in range(0, NUM, 300):
        index.add(vectors[start : start + 300])
        at.append(int(codes.data()))
    assert index.ntotal == NUM
    assert len(set(at)) == 1


def test_what_goes_wrong_while_writing_is_what_is_raised() -> None:
    class Full(io.RawIOBase):
        def write(self, _: Any) -> int:
            raise OSError(28, "No space left on device")

    write = build(IndexConfig(), trained("Flat"), Blocks.of(clustered(50), np.arange(50)))
    with pytest.raises(OSError, match="No space left"):
        write(Full())


def test_ids_are_the_rows() -> None:
    file, vectors = io.BytesIO(), clustered(40)
    build(IndexConfig(), trained("IVF4,Flat"), Blocks.of(vectors, np.arange(40) * 7))(file)
    index = faiss.deserialize_index(np.frombuffer(file.getvalue(), np.uint8))
    assert faiss.vector_to_array(index.id_map).tolist() == list(range(0, 280, 7))
    assert index.ntotal == 40 and index.index.ntotal == 40
    assert index.d == DIM
