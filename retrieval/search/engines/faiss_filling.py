"""Filling a trained FAISS index with the vectors of a shard: in little more memory than the finished file has.

What FAISS adds to grows by doubling, the old beside the new while it is copied: twice the index at its worst. So room
is made once, for as many as will come. A flat index is given its vectors in their places, in whatever order they are
read. How long the lists of an inverted file grow is known once all vectors were assigned to them; the lists are made as
long, and the vectors added by what was found. Any other index is added to in order of row, block by block.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from retrieval.search.blocks import BLOCK, Blocks
from retrieval.search.settings import IndexConfig

# Inverted files whose `add` is an assignment and then `add_core`, and nothing else.
_ASSIGNED = (faiss.IndexIVFFlat, faiss.IndexIVFPQ, faiss.IndexIVFScalarQuantizer)


def build(_config: IndexConfig, trained: bytes, blocks: Blocks) -> Callable[[Any], None]:
    """Raises: ValueError for another dimension than was trained for."""
    index = faiss.deserialize_index(np.frombuffer(trained, dtype=np.uint8))
    if index.d != blocks.dim:
        raise ValueError(
            f"The index was trained on {index.d}-dimensional embeddings, got {blocks.dim}. "
            f"Train it again on embeddings of this model."
        )
    # One thread: HNSW graphs come out the same every time, and shards are already built in parallel.
    faiss.omp_set_num_threads(1)
    whole = faiss.IndexIDMap(index)  # refuses an index that holds something, so it comes first
    fill(index, blocks)
    faiss.copy_array_to_vector(blocks.rows, whole.id_map)
    whole.ntotal = len(blocks)
    return lambda file: _write(whole, file)


def fill(index: Any, blocks: Blocks, block: int = BLOCK) -> None:
    """Args: index: trained, and empty. block: bytes of vectors that are added at once."""
    inside = faiss.downcast_index(index)
    if isinstance(inside, faiss.IndexFlat):
        inside.codes.resize(len(blocks) * inside.code_size)
        inside.ntotal = len(blocks)
        blocks.fill(faiss.rev_swig_ptr(inside.get_xb(), len(blocks) * inside.d).reshape(len(blocks), inside.d))
        return
    if type(inside) in _ASSIGNED:
        _fill_lists(inside, blocks)
        return
    with blocks.in_order(block) as read:
        reserve(inside, len(blocks))
        for vectors in read():
            inside.add(vectors)


def reserve(index: Any, num: int) -> None:
    """Room for `num` vectors in each layer that keeps them, or links between them, in one run of memory."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        reserve(index.base_index, num)
        reserve(index.refine_index, num)
    elif isinstance(index, faiss.IndexPreTransform):
        reserve(index.index, num)
    elif isinstance(index, faiss.IndexHNSW):
        reserve(index.storage, num)
        # A share 1 / M of the nodes is on the level above, with M links there where the lowest has 2 M, and so on up.
        lowest = index.hnsw.nb_neighbors(0)
        _keep_room(index.hnsw.neighbors, int(num * lowest * (1 + 1 / max(1, lowest - 2))))
    elif isinstance(index, faiss.IndexFlatCodes):
        _keep_room(index.codes, num * index.code_size)


def _keep_room(vector: Any, size: int) -> None:
    vector.resize(size)
    vector.resize(0)  # a C++ vector that shrinks keeps its memory


def _fill_lists(index: Any, blocks: Blocks) -> None:
    """As they lie on storage: each vector of a list carries its place, so its neighbours there need no order."""
    lists: deque[np.ndarray] = deque()
    num = np.zeros(index.nlist, dtype=np.int64)

    def assign(vectors: np.ndarray) -> None:
        # Half of what FAISS would have it as, since all are kept until they are used.
        lists.append(index.quantizer.assign(vectors, 1).ravel().astype(np.int32))
        num[:] += np.bincount(lists[-1][lists[-1] >= 0], minlength=index.nlist)

    for at, (places, vectors) in enumerate(blocks.looked_at(assign)):
        if at == 0:
            _make_lists(index, num)
        to, ids = lists.popleft().astype(np.int64), np.ascontiguousarray(places, dtype=np.int64)
        index.add_core(len(vectors), *(faiss.swig_ptr(array) for array in (vectors, ids, to)))


def _make_lists(index: Any, num: np.ndarray) -> None:
    for number in np.flatnonzero(num):
        index.invlists.resize(int(number), int(num[number]))
        index.invlists.resize(int(number), 0)


def _write(whole: Any, file: Any) -> None:
    """Piece by piece: no second copy of the index is made. Raises: what `file.write` raises."""
    failed: list[BaseException] = []

    def hand_on(data: bytes) -> None:
        try:
            file.write(data)
        except BaseException as error:  # FAISS would make a RuntimeError of it
            failed.append(error)
            raise

    try:
        faiss.write_index(whole, faiss.PyCallbackIOWriter(hand_on))
    except BaseException:
        if failed:
            raise failed[0] from None
        raise
