"""Vectors of a shard: in their places, and in order of row by way of a file, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from retrieval.search import blocks as module
from retrieval.search.blocks import Blocks
from tests.support.vectors import clustered

NUM, DIM = 70, 6


def scattered(vectors: np.ndarray) -> Blocks:
    """The vectors come in seven pieces, whose places are in no order."""
    places = np.random.default_rng(0).permutation(len(vectors))

    def pieces() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield from ((some, vectors[some]) for some in np.array_split(places, 7))

    return Blocks(np.arange(len(vectors)) * 3, vectors.shape[1], pieces)


@pytest.mark.parametrize("block", [1, 4 * DIM * 9, 1 << 20])
def test_blocks_are_in_order_of_row_whatever_their_size(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LET_GO", 100)
    vectors = clustered(NUM, DIM)
    with scattered(vectors).in_order(block) as read:
        for _ in range(2):
            made = list(read())
            assert np.array_equal(np.concatenate(made), vectors)
            assert max(map(len, made)) == min(NUM, max(1, block // (4 * DIM)))


@pytest.mark.parametrize("block", [1, 4 * DIM * 25, 1 << 20])
def test_all_are_looked_at_before_any_is_given(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven pieces of ten: as they come, three at a time, all together."""
    monkeypatch.setattr(module, "BLOCK", block)
    vectors, seen = clustered(NUM, DIM), list[np.ndarray]()
    of = scattered(vectors)
    given = list(of.looked_at(seen.append))
    assert sum(map(len, seen)) == NUM and len(seen) == len(given) == {1: 7, 4 * DIM * 25: 3, 1 << 20: 1}[block]
    for (places, some), looked in zip(given, seen, strict=True):
        assert np.array_equal(vectors[places], some) and np.array_equal(some, looked)
    late = of.looked_at(seen.append)
    next(late)
    assert sum(map(len, seen)) == 2 * NUM, "the first is given when the last was seen"


def test_each_vector_has_its_place() -> None:
    vectors = clustered(NUM, DIM)
    assert np.array_equal(scattered(vectors).fill(np.empty_like(vectors)), vectors)
    rows = np.array([5, 2, 9])
    of = Blocks.of(vectors[:3], rows)
    assert of.rows.tolist() == [2, 5, 9]
    assert np.array_equal(of.fill(np.empty((3, DIM), np.float32)), vectors[[1, 0, 2]])


def test_what_cannot_be_indexed_is_refused_on_either_road() -> None:
    vectors = clustered(NUM, DIM)
    vectors[[4, 5], 1] = np.nan
    with pytest.raises(ValueError, match="embeddings hold NaN"):
        scattered(vectors).fill(np.empty_like(vectors))
    with pytest.raises(ValueError, match="embeddings hold NaN"), scattered(vectors).in_order():
        pass
    for rows in ([3, 3], [-1, 2]):
        with pytest.raises(ValueError, match="distinct and not negative"):
            Blocks(np.array(rows), DIM, lambda: iter(()))
