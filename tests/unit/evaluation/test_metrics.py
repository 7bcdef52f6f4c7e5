"""Metrics against hand numbers and slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from retrieval.evaluation import metrics
from retrieval.evaluation.metrics import (
    average_precision,
    index_recall_at_k,
    junk_free_ranks,
    leave_one_out,
    precision_at_k,
    precision_recall,
    retrieval_metrics,
)
from tests.support.oracles import slow_average_precision, slow_ranking


def test_average_precision_by_hand() -> None:
    assert average_precision([0, 2, 5], num_positives=4) == pytest.approx(0.5083333, abs=1e-7)
    assert average_precision([0, 1, 2], num_positives=3) == 1
    assert average_precision([1], num_positives=1) == 0.25  # p0 = 0/1, p1 = 1/2
    assert average_precision([], num_positives=2) == 0


def test_average_precision_equals_the_slow_sum() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        ranks = rng.choice(40, size=int(rng.integers(1, 12)), replace=False)
        assert average_precision(ranks, 15) == pytest.approx(slow_average_precision(sorted(ranks.tolist()), 15))


def test_fewer_positives_than_found_is_refused() -> None:
    with pytest.raises(ValueError, match="no fewer than 2 found"):
        average_precision([0, 1], num_positives=1)
    with pytest.raises(ValueError, match="at least 1"):
        average_precision([], num_positives=0)


def test_junk_leaves_the_ranking_before_ranks_are_counted() -> None:
    ranking = np.array([9, 1, 8, 2, 7, 6, 3, -1])
    assert junk_free_ranks(ranking, np.array([1, 2, 3]), [9, 8]).tolist() == [0, 1, 4]
    assert junk_free_ranks(ranking, np.array([1, 2, 3])).tolist() == [1, 3, 6]


def test_precision_at_k_stops_at_the_last_positive() -> None:
    assert precision_at_k(np.array([0, 2]), 1) == 1
    assert precision_at_k(np.array([0, 2]), 10) == pytest.approx(2 / 3)
    assert precision_at_k(np.array([0, 2, 30]), 10) == pytest.approx(0.2)


def test_precision_recall_by_hand() -> None:
    # Query 0: precision 1 at recall 1/2, 2/4 at 1. Query 1: 1/2, then 2/3 at recall 2/4, two positives never found.
    curve = precision_recall([np.array([0, 3]), np.array([1, 2]), np.array([], int)], [2, 4, 0])
    assert curve.shape == (101,)
    assert curve[[0, 25, 50]] == pytest.approx([(1 + 2 / 3) / 2] * 3)
    assert curve[51] == pytest.approx((0.5 + 0) / 2)
    assert curve[100] == pytest.approx(0.25)
    assert precision_recall([np.array([0, 1])], [2]).tolist() == [1.0] * 101
    assert np.isnan(precision_recall([], [])).all()


def test_index_recall_counts_the_exact_neighbours_found() -> None:
    exact = np.array([[1, 2, 3], [1, 2, 3], [5, -1, -1]])
    found = np.array([[3, 9, 1], [4, 5, -1], [-1, 5, 1]])
    assert index_recall_at_k(found, exact) == pytest.approx((2 + 0 + 1) / 7)
    assert index_recall_at_k(exact, exact) == 1
    with pytest.raises(ValueError, match="same queries and k"):
        index_recall_at_k(found[:, :2], exact)


@pytest.fixture
def world() -> tuple[np.ndarray, np.ndarray]:
    """120 small-integer embeddings (so that scores tie often) and labels, one of them alone, some None."""
    rng = np.random.default_rng(3)
    embeddings = rng.integers(-2, 3, size=(120, 4)).astype(np.float32)
    labels = np.array([f"p{i % 17}" for i in range(120)], object)
    labels[7], labels[[20, 21]] = "alone", None
    return embeddings, labels


@pytest.mark.parametrize("block", [1, 1000, 1 << 22])
def test_leave_one_out_equals_a_slow_loop(
    world: tuple[np.ndarray, np.ndarray], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_BLOCK_ELEMENTS", block)
    embeddings, labels = world
    precision, first = [], []
    for i in range(120):
        ranking = slow_ranking(embeddings[i], embeddings, i)
        ranks = [rank for rank, row in enumerate(ranking) if labels[i] is not None and labels[row] == labels[i]]
        if ranks:
            precision.append(slow_average_precision(ranks, len(ranks)))
            first.append(ranks[0])
    found = leave_one_out(embeddings, labels, ks=(1, 3, 10))
    assert found.values["mAP"] == pytest.approx(np.mean(precision))
    for k in (1, 3, 10):
        assert found.values[f"recall@{k}"] == pytest.approx(np.mean([rank < k for rank in first]))
    assert (found.num_queries, found.num_without_positive) == (120, 3)
    assert np.isnan(found.average_precision[[7, 20, 21]]).all()
    assert found.first_hit[found.first_hit >= 0].tolist() == first


def test_query_and_gallery_equal_a_slow_loop(world: tuple[np.ndarray, np.ndarray]) -> None:
    embeddings, labels = world
    queries, gallery = slice(0, 30), slice(30, 120)
    found = retrieval_metrics(embeddings[queries], labels[queries], embeddings[gallery], labels[gallery])
    precision = []
    for i in range(30):
        ranking = slow_ranking(embeddings[i], embeddings[gallery], -1)
        ranks = [r for r, row in enumerate(ranking) if labels[i] is not None and labels[30 + row] == labels[i]]
        precision += [slow_average_precision(ranks, len(ranks))] if ranks else []
    assert found.values["mAP"] == pytest.approx(np.mean(precision))
    assert found.num_without_positive == 3


def test_nobody_with_a_positive_gives_nan_and_says_so() -> None:
    found = retrieval_metrics(
        np.eye(3, dtype=np.float32), ["a", "b", None], np.eye(3, dtype=np.float32), ["c", "d", None]
    )
    assert found.num_without_positive == 3
    assert all(math.isnan(value) for value in found.values.values())


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        retrieval_metrics(np.ones((3, 4)), ["a"] * 3, np.ones((5, 4)), ["a"] * 4)
    with pytest.raises(ValueError, match="do not fit"):
        retrieval_metrics(np.ones((3, 4)), ["a"] * 3, np.ones((5, 6)), ["a"] * 5)
