"""Metrics against hand numbers and slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from retrieval.evaluation import metrics
from retrieval.evaluation.attributes import attribute_agreement
from retrieval.evaluation.metrics import (
    average_precision,
    index_recall_at_k,
    junk_free_ranks,
    leave_one_out,
    mean_average_precision,
    precision_at_k,
    precision_recall,
    recall_at_k,
    retrieval_metrics,
)


def slow_average_precision(ranks: list[int], num_positives: int) -> float:
    total = 0.0
    for j, rank in enumerate(ranks):
        before = 1.0 if rank == 0 else j / rank
        total += (before + (j + 1) / (rank + 1)) / 2 / num_positives
    return total


def slow_ranking(query: np.ndarray, gallery: np.ndarray, excluded: int) -> list[int]:
    scores = [np.float32((query.astype(float) * vector.astype(float)).sum()) for vector in gallery]
    return sorted((row for row in range(len(gallery)) if row != excluded), key=lambda row: (-scores[row], row))


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


def test_map_leaves_out_queries_without_positives() -> None:
    rankings = [np.array([4, 0, 1]), np.array([0, 1, 4]), np.array([1, 0])]
    positives = [np.array([0, 1]), np.array([], int), np.array([1, 3])]
    expected = (slow_average_precision([0, 1], 2) + slow_average_precision([0], 2)) / 2
    assert mean_average_precision(rankings, positives, junk=[np.array([4])] * 3) == pytest.approx(expected)
    assert math.isnan(mean_average_precision([np.array([0])], [np.array([])]))


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


def test_recall_at_k_counts_queries_with_a_hit() -> None:
    hits = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
    assert recall_at_k(hits, [1, 2, 9]) == {"recall@1": 1 / 3, "recall@2": 2 / 3, "recall@9": 2 / 3}


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


def test_attribute_agreement_by_hand() -> None:
    query = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [0, 0, 0, 0]], np.int8)
    gallery = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [0, 0, 0, 0], [-1, -1, -1, -1]], np.int8)
    rows = np.array([[0, 1, 2], [3, 1, -1], [0, 1, 3]])
    found = attribute_agreement(query, gallery, rows, ks=(1, 2, 100))
    # query 0: 4/4, 2/4, unknown; query 1: 2/4, 2/4, none; query 2 is not known.
    assert found.values["attribute_accuracy@1"] == pytest.approx((1 + 0.5) / 2)
    assert found.values["attribute_accuracy@2"] == pytest.approx((0.75 + 0.5) / 2)
    assert found.values["attribute_accuracy@100"] == found.values["attribute_accuracy@2"]
    assert found.values["attribute_distance@2"] == pytest.approx(2 * (1 - 0.625))
    assert (found.num_queries, found.num_without_attributes) == (3, 1)


def test_attribute_agreement_equals_a_slow_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_BLOCK_ELEMENTS", 900)
    rng = np.random.default_rng(5)
    query, gallery = (
        rng.choice([-1, 1], size=(25, 9)).astype(np.int8),
        rng.choice([-1, 1], size=(40, 9)).astype(np.int8),
    )
    rows = np.stack([rng.permutation(40)[:12] for _ in range(25)])
    found = attribute_agreement(query, gallery, rows, ks=(3, 12))
    for k in (3, 12):
        accuracy = [np.mean([np.mean(query[i] == gallery[row]) for row in rows[i, :k]]) for i in range(25)]
        distance = [
            np.mean([np.abs(query[i].astype(int) - gallery[row]).sum() / 9 for row in rows[i, :k]]) for i in range(25)
        ]
        assert found.values[f"attribute_accuracy@{k}"] == pytest.approx(np.mean(accuracy))
        assert found.values[f"attribute_distance@{k}"] == pytest.approx(np.mean(distance))


def test_other_attribute_values_are_refused() -> None:
    with pytest.raises(ValueError, match="of -1 and 1"):
        attribute_agreement(np.full((1, 3), 2, np.int8), np.ones((1, 3), np.int8), np.zeros((1, 1), int), ks=(1,))
