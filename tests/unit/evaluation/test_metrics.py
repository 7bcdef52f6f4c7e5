"""Metrics against hand numbers and slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from retrieval.evaluation import metrics
from retrieval.evaluation.metrics import (
    average_precision,
    blocks,
    index_recall_at_k,
    interpolated_precision,
    junk_free_ranks,
    label_codes,
    leave_one_out,
    mean_or_nan,
    precision_at_k,
    precision_recall,
    ranked_metrics,
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
    assert junk_free_ranks(np.array([-1, 1, -1, 2]), np.array([1, 2])).tolist() == [0, 1]  # gaps take no rank


def test_precision_at_k_stops_at_the_last_positive() -> None:
    assert precision_at_k(np.array([0, 2]), 1) == 1
    assert precision_at_k(np.array([0, 2]), 2) == 0.5
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


def slow_metrics(
    rankings: list[list[int]],
    mine: list[str | None],
    theirs: list[str | None],
    excluded: list[int],
    ks: tuple[int, ...],
) -> dict[str, float]:
    """Recall@k and mAP of given rankings, from which the excluded row is taken out."""
    precision, first = [], []
    for ranking, label, own in zip(rankings, mine, excluded, strict=True):
        total = sum(label is not None and of == label and row != own for row, of in enumerate(theirs))
        kept = [row for row in ranking if row not in (own, -1)]
        ranks = [rank for rank, row in enumerate(kept) if label is not None and theirs[row] == label]
        if total:
            precision.append(slow_average_precision(ranks, total))
            first.append(ranks[0] if ranks else math.inf)
    return {"mAP": float(np.mean(precision))} | {f"recall@{k}": float(np.mean([r < k for r in first])) for k in ks}


@pytest.mark.parametrize("width", [3, 12, 40])
def test_given_rankings_equal_a_slow_loop(width: int) -> None:
    """Lists cut short, with gaps, with the excluded row among them, of labels that the gallery has not."""
    rng = np.random.default_rng(width)
    theirs = [None if row % 9 == 0 else f"p{row % 7}" for row in range(40)]
    mine = [f"p{query % 9}" if query % 8 else None for query in range(30)]  # p7 and p8 are not in the gallery
    excluded = [int(rng.integers(0, 40)) if query % 3 else -1 for query in range(30)]
    rows = np.stack([rng.permutation(40)[:width] for _ in range(30)])
    rows[rng.random(rows.shape) < 0.1] = -1
    found = ranked_metrics(rows, mine, theirs, ks=(1, 2, 10, 50), exclude_rows=np.array(excluded))
    assert found.values == pytest.approx(slow_metrics(rows.tolist(), mine, theirs, excluded, (1, 2, 10, 50)))
    without = ranked_metrics(rows, mine, theirs, ks=(1, 10))
    assert without.values == pytest.approx(slow_metrics(rows.tolist(), mine, theirs, [-1] * 30, (1, 10)))
    assert found.num_queries == 30 and found.num_without_positive == int((found.first_hit < 0).sum())
    assert np.isnan(found.average_precision).tolist() == (found.first_hit < 0).tolist()


def test_a_match_that_a_short_list_misses_is_no_hit_at_any_k() -> None:
    found = ranked_metrics(np.array([[1, 2]]), ["a"], ["a", "b", "b"], ks=(1, 2, 10))
    assert found.values == {"recall@1": 0, "recall@2": 0, "recall@10": 0, "mAP": 0}
    assert (found.num_without_positive, found.curve.tolist()) == (0, [0.0] * 101)


def test_a_whole_ranking_gives_the_figures_of_the_search(world: tuple[np.ndarray, np.ndarray]) -> None:
    embeddings, labels = world
    own = np.arange(120)
    rows = np.stack([slow_ranking(embeddings[i], embeddings, i) for i in range(120)])
    searched = leave_one_out(embeddings, labels, ks=(1, 7))
    given = ranked_metrics(rows, labels, labels, ks=(1, 7), exclude_rows=own)
    assert given.values == pytest.approx(searched.values)
    assert given.first_hit.tolist() == searched.first_hit.tolist()
    assert given.average_precision == pytest.approx(searched.average_precision, nan_ok=True)
    assert given.curve == pytest.approx(searched.curve)


def test_the_curve_is_the_mean_of_the_queries(
    world: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_BLOCK_ELEMENTS", 700)
    embeddings, labels = world
    ranks, totals = [], []
    for i in range(120):
        ranking = slow_ranking(embeddings[i], embeddings, i)
        mine = [rank for rank, row in enumerate(ranking) if labels[i] is not None and labels[row] == labels[i]]
        ranks.append(np.array(mine, int))
        totals.append(len(mine))
    assert leave_one_out(embeddings, labels).curve == pytest.approx(precision_recall(ranks, totals))


def test_an_excluded_row_leaves_the_ranking_whatever_its_label() -> None:
    """Row 0 scores best and is a stranger, row 1 second and a match, row 2 last and a match."""
    gallery = np.array([[3.0], [2], [1]], np.float32)
    labels = ["b", "a", "a"]

    def found(excluded: int) -> tuple[int, float]:
        out = retrieval_metrics(np.ones((1, 1), np.float32), ["a"], gallery, labels, exclude_rows=np.array([excluded]))
        return int(out.first_hit[0]), float(out.average_precision[0])

    assert found(-1) == (1, pytest.approx(slow_average_precision([1, 2], 2)))
    assert found(0) == (0, 1.0)
    assert found(1) == (1, pytest.approx(slow_average_precision([1], 1)))
    assert found(2) == (1, pytest.approx(slow_average_precision([1], 1)))


def test_equal_vectors_tie_in_order_of_row_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of a vector score differently in their last bits in float32 products of different shapes."""
    rng = np.random.default_rng(0)
    some = rng.normal(size=(6, 67)).astype(np.float32)
    gallery, queries = np.concatenate([some] * 5), rng.normal(size=(9, 67)).astype(np.float32)
    labels = [f"{row}" for row in range(30)]
    mine = [labels[row] for row in rng.integers(0, 30, 9)]
    wanted = [slow_ranking(query, gallery).index(labels.index(own)) for query, own in zip(queries, mine)]
    for block in (1, 45, 1 << 20):
        monkeypatch.setattr(metrics, "_BLOCK_ELEMENTS", block)
        assert retrieval_metrics(queries, mine, gallery, labels).first_hit.tolist() == wanted


def test_interpolated_precision_is_the_best_from_there_on() -> None:
    # Found at ranks 0, 3, 4 of 4 positives: precisions 1, 1/2, 3/5; the fourth is never found.
    curve = interpolated_precision(np.array([0, 3, 4]), 4)
    assert curve[[0, 1, 25]].tolist() == [1, 1, 1]
    assert curve[[26, 50, 51, 75]].tolist() == [0.6, 0.6, 0.6, 0.6]
    assert curve[[76, 100]].tolist() == [0, 0]
    assert interpolated_precision(np.array([], int), 3).tolist() == [0.0] * 101
    thirds = interpolated_precision(np.array([0, 2, 4]), 3)  # 33 % of 3 is one positive, 34 % takes two
    assert thirds[[33, 34, 66, 67]] == pytest.approx([1, 2 / 3, 2 / 3, 3 / 5])


def test_labels_get_equal_numbers_on_both_sides() -> None:
    mine, theirs = label_codes(["b", None, "a"], np.array(["a", "c", None, "b"], object))
    assert mine.tolist() == [0, -1, 1] and theirs.tolist() == [1, 2, -1, 0]


def test_blocks_cover_all_queries_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_BLOCK_ELEMENTS", 10)
    assert list(blocks(7, 4)) == [(0, 2), (2, 4), (4, 6), (6, 7)]
    assert list(blocks(2, 99)) == [(0, 1), (1, 2)]
    assert list(blocks(3, 0)) == [(0, 3)] and list(blocks(0, 5)) == []


def test_means_pass_over_what_is_not_known() -> None:
    assert mean_or_nan(np.array([1.0, np.nan, 2.0])) == 1.5
    assert math.isnan(mean_or_nan(np.array([np.nan])))


def test_an_index_without_anything_to_find_has_recall_nought() -> None:
    nothing = np.full((2, 3), -1)
    assert index_recall_at_k(nothing, nothing) == 0
    # The same rows in other queries' lists are not found, and each is counted once.
    assert index_recall_at_k(np.array([[2, 2], [1, 1]]), np.array([[1, 0], [2, 0]])) == 0
    assert index_recall_at_k(np.array([[1, 1]]), np.array([[1, 0]])) == 0.5
    # A gap in one list is not the last row in the list before it.
    assert index_recall_at_k(np.array([[1], [-1]]), np.array([[3], [0]])) == 0
