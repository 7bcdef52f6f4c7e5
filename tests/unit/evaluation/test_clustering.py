"""BCubed and pairwise figures, held against their definitions as plain loops over photos and over pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from retrieval.evaluation.clustering import clustering_metrics


def by_definition(groups: list[int | None], labels: list[str]) -> tuple[float, float, float, float]:
    """Each photo asks all photos, itself included; each pair is looked at."""
    num = len(groups)
    together = [[i == j or (groups[i] is not None and groups[i] == groups[j]) for j in range(num)] for i in range(num)]
    same = [[labels[i] == labels[j] for j in range(num)] for i in range(num)]
    both = [[a and b for a, b in zip(x, y)] for x, y in zip(together, same)]
    precision = sum(sum(b) / sum(t) for b, t in zip(both, together)) / num
    recall = sum(sum(b) / sum(s) for b, s in zip(both, same)) / num
    pairs = list(itertools.combinations(range(num), 2))
    common, grouped, right = (sum(table[i][j] for i, j in pairs) for table in (both, together, same))
    return precision, recall, common / grouped if grouped else 1.0, common / right if right else 1.0


@pytest.mark.parametrize("seed", range(8))
def test_figures_are_those_of_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = [f"p{n}" for n in rng.integers(0, 5, 30)]
    groups = [None if n < 2 else int(n) for n in rng.integers(0, 9, 30)]
    found = clustering_metrics(groups, labels)
    figures = (found.bcubed_precision, found.bcubed_recall, found.pair_precision, found.pair_recall)
    assert figures == pytest.approx(by_definition(groups, labels), abs=1e-12)
    assert found.bcubed_f == pytest.approx(2 / (1 / figures[0] + 1 / figures[1]))


def test_the_order_of_photos_is_not_seen() -> None:
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 9, 100).tolist(), [int(n) or None for n in rng.integers(0, 12, 100)]
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(100)
        assert clustering_metrics(groups, labels) == clustering_metrics(
            [groups[row] for row in order], [labels[row] for row in order]
        )


def test_a_perfect_grouping_one_of_singles_and_one_of_everybody() -> None:
    labels = ["a", "a", "b", "b", "b", "c"]
    perfect = clustering_metrics([1, 1, 2, 2, 2, None], labels)
    assert (perfect.bcubed_f, perfect.pair_f, perfect.num_groups, perfect.num_labels) == (1.0, 1.0, 2, 3)
    alone = clustering_metrics([None] * 6, labels)
    assert (alone.bcubed_precision, alone.pair_precision, alone.pair_recall, alone.pair_f) == (1.0, 1.0, 0.0, 0.0)
    assert alone.bcubed_recall == pytest.approx(3 / 6)
    everybody = clustering_metrics([7] * 6, labels)
    assert everybody.bcubed_recall == 1.0
    assert everybody.pair_precision == pytest.approx(4 / 15)


def test_photos_that_nobody_knows_are_left_out_and_counted() -> None:
    found = clustering_metrics([1, 1, 1, None], ["a", "a", None, None])
    assert (found.num, found.num_unlabelled, found.bcubed_precision) == (2, 2, 1.0)


def test_nothing_and_lists_of_two_lengths() -> None:
    empty = clustering_metrics([], [])
    assert (empty.bcubed_precision, empty.pair_recall, empty.num) == (1.0, 1.0, 0)
    with pytest.raises(ValueError, match="2 groups and 1 labels"):
        clustering_metrics([1, 2], ["a"])
