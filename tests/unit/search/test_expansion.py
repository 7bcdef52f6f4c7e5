from __future__ import annotations

import numpy as np
import pytest

from retrieval.search import expansion
from retrieval.search.expansion import augment_gallery, expand, expand_by_blocks, expand_by_search, expand_found
from retrieval.search.index import flat_search
from retrieval.search.ranking import Neighbours
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


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_neighbours_that_are_not_there_count_nothing(alpha: float) -> None:
    """A gallery of two, five asked for: with alpha 0 what is missing would weigh as much as what is there."""
    query, gallery = np.array([[1.0, 0.0]], np.float32), np.array([[0.8, 0.6], [0.6, 0.8]], np.float32)
    missing = np.array([[[0.8, 0.6], [0.6, 0.8], [0, -1], [0, -1]]])
    want = slow(query[0], gallery, 2, alpha)
    got = expand(query, missing, np.array([[0.8, 0.6, -np.inf, -np.inf]]), alpha)
    assert np.allclose(got, want, atol=1e-6)
    # By search: rows -1 read the gallery's first vector, which must not count again.
    found = Neighbours(np.array([[0.8, 0.6, 0.0]], np.float32), np.array([[0, 1, -1]]))
    asked: list[np.ndarray] = []

    def vectors_of(rows: np.ndarray) -> np.ndarray:
        asked.append(rows)
        return gallery[rows]

    assert np.allclose(expand_found(query, found, vectors_of, alpha), want, atol=1e-6)
    assert asked[0].tolist() == [[0, 1, 0]]
    config = ExpansionConfig(num=5, alpha=alpha)
    assert np.allclose(expand_by_search(query, gallery, flat_search(gallery), config), want, atol=1e-6)
    assert np.allclose(expand_by_blocks(query, [gallery], config), want, atol=1e-6)


def test_alpha_0_counts_all_alike_and_a_neighbour_that_points_away_too() -> None:
    query, near = np.array([[1.0, 0.0]]), np.array([[[0.0, 1.0], [-0.6, 0.8]]])
    got = expand(query, near, np.array([[0.0, -0.6]]), alpha=0)
    assert np.allclose(got, np.array([[0.4, 1.8]]) / np.hypot(0.4, 1.8), atol=1e-6)
    assert np.allclose(expand(query, near, np.array([[0.0, -0.6]]), alpha=1), query)


def test_the_default_weighs_by_the_cube_and_answers_are_unit_float32() -> None:
    queries, gallery = unit(np.random.default_rng(5), 3), unit(np.random.default_rng(6), 9)
    got = expand_by_search(queries, gallery, flat_search(gallery), ExpansionConfig(num=4))
    assert np.allclose(got, [slow(query, gallery, 4, 3.0) for query in queries], atol=1e-6)
    assert got.dtype == np.float32
    assert np.allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)
    lost = expand(np.array([[1.0, 0.0]]), np.array([[[-1.0, 0.0]]]), np.array([[1.0]]), alpha=1)
    assert np.isfinite(lost).all()


@pytest.mark.parametrize("block", [1, 3, 7])
def test_blocks_of_queries_change_nothing_and_each_leaves_out_its_own(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    gallery = unit(np.random.default_rng(7), 20)
    rows = np.array([4, -1, 19, 0, -1, 11, 7])
    monkeypatch.setattr(expansion, "_BLOCK", block)
    widths = []

    def search(queries: np.ndarray, k: int) -> Neighbours:
        widths.append(k)
        return flat_search(gallery)(queries, k)

    got = expand_by_search(gallery[rows], gallery, search, ExpansionConfig(num=3, alpha=1.0), exclude=rows)
    want = [slow(gallery[row], gallery, 3, 1.0, own=row if row >= 0 else -1) for row in rows]
    assert np.allclose(got, want, atol=1e-6)
    assert widths == [4] * -(-7 // block)  # one more than is taken on: itself is among them


def test_a_gallery_smaller_than_what_is_asked_for() -> None:
    gallery = unit(np.random.default_rng(8), 3)
    config = ExpansionConfig(num=10, alpha=0.0)
    want = [slow(x, gallery, 2, 0.0, own=row) for row, x in enumerate(gallery)]
    assert np.allclose(augment_gallery(gallery, flat_search(gallery), config), want, atol=1e-6)


def test_only_the_nearest_so_far_are_kept_of_a_gallery_in_blocks() -> None:
    """The nearest come first, in the middle, last; a block of none that are near changes nothing."""
    rng = np.random.default_rng(9)
    query, gallery = unit(rng, 2), unit(rng, 60)
    order = np.argsort(-(gallery @ query[0]))
    for places in (order, order[::-1], np.roll(order, 30)):
        blocks = [gallery[places[start : start + 13]] for start in range(0, 60, 13)]
        got = expand_by_blocks(query, blocks, ExpansionConfig(num=4, alpha=2.0))
        assert np.allclose(got, [slow(one, gallery, 4, 2.0) for one in query], atol=1e-6)
