"""The fixed score and the order of results, against sorting in plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.search.ranking import (
    Neighbours,
    as_queries,
    drop_rows,
    inner_products,
    merge_top_k,
    rounding_margin,
    top_k,
)

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
