"""The fixed score and the order of results, against sorting in plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.search import ranking
from retrieval.search.ranking import (
    Neighbours,
    as_queries,
    drop_rows,
    inner_products,
    merge_top_k,
    pad,
    rounding_margin,
    scan,
    top_k,
)
from tests.support.vectors import brute_force, clustered

rng = np.random.default_rng(0)


def test_score_of_a_pair_does_not_depend_on_what_it_is_computed_with() -> None:
    vectors = rng.normal(size=(300, 96)).astype(np.float32)
    queries = rng.normal(size=(7, 96)).astype(np.float32)
    candidates = np.stack([rng.permutation(300) for _ in range(7)])
    whole = inner_products(queries, vectors, candidates)
    for i in range(7):
        for j in range(0, 300, 37):
            alone = inner_products(queries[i : i + 1], vectors[candidates[i, j]][None], np.zeros((1, 1), np.int64))
            assert alone[0, 0] == whole[i, j]


def test_absent_candidates_score_minus_infinity() -> None:
    scores = inner_products(np.ones((1, 4), np.float32), np.ones((2, 4), np.float32), np.array([[1, -1]]))
    assert scores.tolist() == [[4.0, -np.inf]]


def test_margin_covers_float32_products_in_any_order() -> None:
    queries = rng.normal(size=(50, 512)).astype(np.float32)
    vectors = rng.normal(size=(400, 512)).astype(np.float32)
    exact = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    margin = rounding_margin(queries, float(np.linalg.norm(vectors, axis=1).max()))
    order = rng.permutation(512)
    for product in (queries @ vectors.T, queries[:, order] @ vectors[:, order].T):
        assert (np.abs(product - exact) <= margin[:, None]).all()


def test_top_k_is_a_sort_by_score_then_row_and_pads() -> None:
    scores = rng.integers(0, 4, size=(20, 30)).astype(np.float32)
    rows = np.stack([rng.permutation(30) for _ in range(20)])
    rows[rng.random(rows.shape) < 0.2] = -1
    found = top_k(scores, rows, 33)
    for i in range(20):
        pairs = sorted((-s, r) for s, r in zip(scores[i].tolist(), rows[i].tolist(), strict=True) if r >= 0)
        assert found.rows[i].tolist() == [row for _, row in pairs] + [-1] * (33 - len(pairs))
        assert found.scores[i].tolist() == [-score for score, _ in pairs] + [-np.inf] * (33 - len(pairs))


def test_merging_shards_equals_one_list() -> None:
    scores = rng.integers(0, 5, size=(10, 60)).astype(np.float32)
    rows = np.stack([rng.permutation(60) for _ in range(10)])
    parts = [top_k(scores[:, cut], rows[:, cut], 12) for cut in (slice(0, 7), slice(7, 41), slice(41, 60))]
    merged, whole = merge_top_k(parts, 12), top_k(scores, rows, 12)
    assert (merged.rows == whole.rows).all()
    assert (merged.scores == whole.scores).all()
    with pytest.raises(ValueError, match="Nothing to merge"):
        merge_top_k([], 3)


def test_dropping_a_row_closes_the_gap() -> None:
    found = Neighbours(np.array([[3, 2, 1], [3, 2, 1]], np.float32), np.array([[7, 4, 9], [7, 4, 9]]))
    assert drop_rows(found, np.array([4, -1]), 2).rows.tolist() == [[7, 9], [7, 4]]
    with pytest.raises(ValueError, match="one row a query"):
        drop_rows(found, np.array([1]), 2)


@pytest.mark.parametrize(
    ("queries", "message"), [(np.ones((2, 3)), r"expected \(num_queries, 4\)"), (np.array([[1, 2, np.nan, 0]]), "NaN")]
)
def test_unusable_queries_are_refused(queries: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_queries(queries, 4)


def test_one_query_may_come_as_a_vector_and_all_become_float32() -> None:
    one = as_queries(np.arange(4), 4)
    assert (one.shape, one.dtype, one.tolist()) == ((1, 4), np.float32, [[0, 1, 2, 3]])
    turned = as_queries(np.ones((4, 3), np.float32).T, 4)
    assert turned.shape == (3, 4) and turned.flags.c_contiguous
    for shape in ((2, 2, 4), (3,), ()):
        with pytest.raises(ValueError, match="expected"):
            as_queries(np.ones(shape), 4)
    with pytest.raises(ValueError, match="infinite"):
        as_queries(np.array([1, np.inf, 0, 0]), 4)


def test_a_score_is_summed_in_float64_and_rounded_once() -> None:
    """1 + 2^-24 + 2^-24: in float32 each small term is lost, in float64 they add up to the next float32."""
    vector = np.array([[1, 2.0**-24, 2.0**-24]], np.float32)
    score = inner_products(np.ones((1, 3), np.float32), vector, np.zeros((1, 1), np.int64))
    assert score.dtype == np.float32
    assert float(score[0, 0]) == 1 + 2.0**-23


def test_scores_do_not_depend_on_how_many_are_gathered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, vectors = rng.normal(size=(11, 8)).astype(np.float32), rng.normal(size=(30, 8)).astype(np.float32)
    candidates = rng.integers(-1, 30, size=(11, 5))
    whole = inner_products(queries, vectors, candidates)
    for elements in (1, 8 * 5 * 3, 8 * 5 * 4 + 1):
        monkeypatch.setattr(ranking, "_BLOCK_ELEMENTS", elements)
        assert np.array_equal(inner_products(queries, vectors, candidates), whole)
    assert inner_products(queries, vectors[:0], np.full((11, 2), -1)).tolist() == [[-np.inf] * 2] * 11
    assert inner_products(queries, vectors, np.empty((11, 0), np.int64)).shape == (11, 0)


def test_the_margin_is_the_classic_bound_and_no_wider_than_it_must_be() -> None:
    queries = np.array([[3, 4], [0, 0], [6, 8]], np.float32)
    margin = rounding_margin(queries, 2.0)
    assert margin[1] == 0
    assert margin[2] == pytest.approx(2 * margin[0])
    assert margin[0] == pytest.approx(5 * 2 * 2.0**-24 * 10, rel=0.02)
    assert rounding_margin(np.ones((1, 992), np.float32), 1)[0] == pytest.approx(1000 * 2.0**-24 * 992**0.5, rel=0.02)


def test_what_is_not_there_comes_last_whatever_it_is_scored() -> None:
    found = top_k(np.array([[9.0, 1.0, -5.0]], np.float32), np.array([[-1, 4, 2]]), 3)
    assert (found.rows.tolist(), found.scores.tolist()) == ([[4, 2, -1]], [[1.0, -5.0, -np.inf]])


def test_padding_widens_and_never_narrows() -> None:
    found = Neighbours(np.array([[2.0, 1.0]], np.float32), np.array([[5, 6]]))
    assert pad(found, 1) is found and pad(found, 2) is found
    wide = pad(found, 4)
    assert (wide.rows.tolist(), wide.scores.tolist()) == ([[5, 6, -1, -1]], [[2.0, 1.0, -np.inf, -np.inf]])
    assert (wide.rows.dtype, wide.scores.dtype) == (np.int64, np.float32)


def test_shards_that_found_too_little_are_merged_and_padded() -> None:
    one = Neighbours(np.array([[3.0, -np.inf]], np.float32), np.array([[8, -1]]))
    two = Neighbours(np.array([[3.0, 2.0]], np.float32), np.array([[7, 9]]))
    merged = merge_top_k([one, two], 5)
    assert (merged.rows.tolist(), merged.scores[0, :3].tolist()) == ([[7, 8, 9, -1, -1]], [3.0, 3.0, 2.0])
    assert merge_top_k([one, two], 2).rows.tolist() == [[7, 8]]


def test_dropping_keeps_scores_with_their_rows() -> None:
    found = Neighbours(np.array([[3, 2, 1]], np.float32), np.array([[7, 4, 9]]))
    left = drop_rows(found, np.array([7]), 2)
    assert (left.rows.tolist(), left.scores.tolist()) == ([[4, 9]], [[2.0, 1.0]])
    assert drop_rows(found, np.array([5]), 5).rows.tolist() == [[7, 4, 9, -1, -1]]


@pytest.mark.parametrize("num", [0, 1, 7, 300])
def test_a_scan_is_a_plain_sort(num: int) -> None:
    vectors = clustered(max(num, 1))[:num] * np.float32(3)
    if num > 100:
        vectors[50:80] = vectors[3]
    queries = np.concatenate([clustered(300)[3:4], clustered(5, seed=2)])
    for k in (1, 20, 400):
        found = scan(queries, vectors, k)
        assert found.rows.shape == found.scores.shape == (6, k)
        assert [row[row >= 0].tolist() for row in found.rows] == brute_force(queries, vectors, k)
        assert (found.scores[found.rows < 0] == -np.inf).all()
    assert scan(queries[:0], vectors, 3).rows.shape == (0, 3)
