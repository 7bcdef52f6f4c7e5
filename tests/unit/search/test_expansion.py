from __future__ import annotations

import numpy as np
import pytest

from retrieval.search.expansion import augment_gallery, expand, expand_by_blocks, expand_by_search
from retrieval.search.index import flat_search
from retrieval.search.settings import ExpansionConfig


def unit(rng: np.random.Generator, num: int, dim: int = 16) -> np.ndarray:
    x = rng.normal(size=(num, dim)) + 0.5
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def slow(query: np.ndarray, gallery: np.ndarray, num: int, alpha: float, own: int = -1) -> np.ndarray:
    scores = [(float(query.astype(np.float64) @ x), row) for row, x in enumerate(gallery) if row != own]
    total = query.astype(np.float64)
    for score, row in sorted(scores, reverse=True)[:num]:
        total = total + max(score, 0.0) ** alpha * gallery[row]
    return total / np.linalg.norm(total)


@pytest.mark.parametrize(("num", "alpha"), [(1, 3.0), (5, 3.0), (5, 0.0), (60, 2.0)])
def test_expansion_equals_the_slow_definition(num: int, alpha: float) -> None:
    rng = np.random.default_rng(0)
    queries, gallery = unit(rng, 7), unit(rng, 40)
    got = expand_by_search(queries, gallery, flat_search(gallery), ExpansionConfig(num=num, alpha=alpha))
    assert np.allclose(got, [slow(query, gallery, num, alpha) for query in queries], atol=1e-6)


@pytest.mark.parametrize("block", [1, 7, 40])
@pytest.mark.parametrize(("num", "alpha"), [(1, 3.0), (5, 3.0), (5, 0.0), (60, 2.0)])
def test_expansion_by_blocks_equals_the_slow_definition(num: int, alpha: float, block: int) -> None:
    rng = np.random.default_rng(3)
    queries, gallery = unit(rng, 7), unit(rng, 40)
    blocks = (gallery[start : start + block] for start in range(0, 40, block))
    got = expand_by_blocks(queries, blocks, ExpansionConfig(num=num, alpha=alpha))
    assert np.allclose(got, [slow(query, gallery, num, alpha) for query in queries], atol=1e-6)


def test_of_equal_neighbours_the_first_block_s_is_taken() -> None:
    first, second = np.array([[0.8, 0.6]], np.float32), np.array([[0.8, -0.6]], np.float32)
    query = np.array([[1.0, 0.0]], np.float32)
    config = ExpansionConfig(num=1, alpha=0)
    assert expand_by_blocks(query, [first, second], config)[0, 1] > 0
    assert expand_by_blocks(query, [second, first], config)[0, 1] < 0
    assert expand_by_blocks(query, [], ExpansionConfig()) is query
    assert np.allclose(expand_by_blocks(query, [], config), query)


def test_a_query_of_the_gallery_does_not_take_on_itself() -> None:
    gallery = unit(np.random.default_rng(1), 30)
    config = ExpansionConfig(num=4)
    want = [slow(x, gallery, 4, 3.0, own=row) for row, x in enumerate(gallery)]
    assert np.allclose(augment_gallery(gallery, flat_search(gallery), config), want, atol=1e-6)


def test_by_hand() -> None:
    # q = (1, 0), x1 = (0.8, 0.6): q + 0.8^3 x1 = (1.4096, 0.3072); one that points away adds nothing, nor one missing
    got = expand(np.array([[1.0, 0.0]]), np.array([[[0.8, 0.6], [-1, 0], [0, 1]]]), np.array([[0.8, -1.0, -np.inf]]))
    assert np.allclose(got, np.array([[1.4096, 0.3072]]) / np.hypot(1.4096, 0.3072), atol=1e-6)


def test_no_neighbours_asked_for_leaves_the_query() -> None:
    queries = unit(np.random.default_rng(2), 3)
    assert expand_by_search(queries, queries, flat_search(queries), ExpansionConfig()) is queries


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 0 or more"):
        ExpansionConfig(num=-1)
