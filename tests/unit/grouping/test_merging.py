"""Groups by average linkage: held against SciPy's on all pairs, and against a plain loop on a few links."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from retrieval.grouping import merging
from retrieval.grouping.merging import cohesion, distinct, roots, split_keys
from retrieval.search.index import flat_search
from tests.support.vectors import clustered


def merge(vectors: np.ndarray, *how: Any, **more: Any) -> np.ndarray:
    """Without adding the vectors up where they lie."""
    return merging.merge(vectors.copy(), *how, **more)


def all_pairs(num: int) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.triu_indices(num, 1)
    return low, high


def unit(*rows: tuple[float, ...]) -> np.ndarray:
    x = np.array(rows, dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def partition(groups: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(groups == group).tolist()) for group in np.unique(groups)}


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.4, 0.6, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_with_all_pairs_linked_it_is_average_linkage(seed: int, threshold: float) -> None:
    vectors = clustered(90, dim=12, seed=seed)
    tree = linkage(pdist(vectors.astype(np.float64), "cosine"), "average")
    expected = fcluster(tree, 1 - threshold, "distance")
    assert partition(merge(vectors, *all_pairs(90), threshold)) == partition(expected)


@pytest.mark.parametrize("threshold", [0.4, 0.5, 0.6])
def test_the_nearest_of_each_are_links_enough(threshold: float) -> None:
    vectors = clustered(400, dim=24, seed=4)
    found = flat_search(vectors)(vectors, 16)
    row, other = np.repeat(np.arange(400), 16), found.rows.ravel()
    keys = np.unique((np.minimum(row, other) * 400 + np.maximum(row, other))[row != other])
    groups = merge(vectors, keys // 400, keys % 400, threshold)
    assert partition(groups) == partition(merge(vectors, *all_pairs(400), threshold))
    for group in partition(groups):
        assert min(group) == groups[min(group)]


def test_a_chain_of_neighbours_that_are_alike_makes_no_group_of_strangers() -> None:
    angles = np.deg2rad(np.arange(0, 100, 20))
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    groups = merge(vectors, np.arange(4), np.arange(1, 5), np.cos(np.deg2rad(25)))
    assert len(partition(groups)) > 1
    for group in partition(groups):
        assert all(abs(a - b) == 1 for a, b in itertools.combinations(sorted(group), 2))


def test_nobody_is_merged_without_a_link_however_alike() -> None:
    vectors = unit((1, 0), (1, 0), (1, 0))
    assert merge(vectors, np.array([0]), np.array([2]), 0.5).tolist() == [0, 1, 0]
    assert merge(vectors, np.empty(0, int), np.empty(0, int), 0.5).tolist() == [0, 1, 2]


def test_equal_scores_are_settled_by_row_and_all_copies_come_together() -> None:
    copies = np.repeat(unit((1, 0, 0), (0, 1, 0)), 5, axis=0)
    assert merge(copies, *all_pairs(10), 0.99).tolist() == [0] * 5 + [5] * 5
    # The middle one is as near to one side as to the other: it goes with the first.
    vectors = unit((1, 0.75, 0), (1, 0, 0), (1, -0.75, 0))
    assert merge(vectors, np.array([0, 1]), np.array([1, 2]), 0.7).tolist() == [0, 0, 2]


def test_the_order_of_links_and_of_photos_is_not_seen() -> None:
    vectors = clustered(120, dim=8, seed=2)
    low, high = all_pairs(120)
    expected = merge(vectors, low, high, 0.45)
    order = np.random.default_rng(1).permutation(len(low))
    assert merge(vectors, low[order], high[order], 0.45).tolist() == expected.tolist()
    turned = merge(vectors[::-1].copy(), low, high, 0.45)[::-1]
    assert partition(turned) == partition(expected)


def test_the_threshold_itself_is_enough() -> None:
    vectors = unit((1, 0), (3, 4))
    assert merge(vectors, np.array([0]), np.array([1]), float(vectors[0].astype(float) @ vectors[1])).tolist() == [0, 0]


def test_groups_to_begin_with_stay_and_grow() -> None:
    vectors = unit((1, 0, 0), (0, 1, 0), (0.9, 0.1, 0), (0, 0, 1))
    start = np.array([0, 0, 2, 3])
    assert merge(vectors, *all_pairs(4), 0.5, start).tolist() == [0, 0, 0, 3]
    assert merge(vectors, *all_pairs(4), 0.6, start).tolist() == [0, 0, 2, 3], "by the mean over the whole group"
    assert start.tolist() == [0, 0, 2, 3]


def test_each_photo_of_a_group_to_begin_with_counts() -> None:
    vectors = unit((1, 0), (0, 1), (0, 1), (1, 0))
    assert merge(vectors, np.array([0]), np.array([3]), 0.4, np.array([0, 0, 0, 3])).tolist() == [0, 0, 0, 3]
    assert merge(vectors, np.array([0]), np.array([3]), 0.3, np.array([0, 0, 0, 3])).tolist() == [0, 0, 0, 0]


def test_progress_ends_at_the_number_of_links() -> None:
    told = []
    merge(clustered(40), *all_pairs(40), 0.5, progress=lambda *said: told.append(said))
    assert told[-1] == ("merge", 780, 780)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


@pytest.mark.parametrize("start", [None, np.array([0, 1, 1, 1, *range(4, 60)])])
def test_of_each_group_the_sum_of_its_photos_is_left(start: np.ndarray | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "_BLOCK", 7)
    vectors = clustered(60, dim=12)
    sums = vectors.copy()
    groups = merging.merge(sums, *all_pairs(60), 0.4, start)
    assert 1 < len(partition(groups)) < 60 and groups.dtype == np.int32
    for group in partition(groups):
        assert sums[min(group)] == pytest.approx(vectors[sorted(group)].astype(np.float64).sum(axis=0), abs=1e-5)


def test_cohesion_is_the_mean_cosine_with_the_others() -> None:
    vectors, groups = clustered(30, seed=1), np.repeat([0, 3, 4], [3, 1, 26]).astype(np.int32)
    sums = np.stack([vectors[groups == row].sum(axis=0) for row in range(30)])
    parts = [(rows, vectors[rows]) for rows in (np.arange(0, 30, 2), np.arange(1, 30, 2))]
    found = cohesion(parts, groups, sums)
    for row in range(30):
        others = [other for other in range(30) if groups[other] == groups[row] and other != row]
        if others:
            assert found[row] == pytest.approx(np.mean([vectors[row] @ vectors[other] for other in others]), abs=1e-6)
        else:
            assert np.isnan(found[row])


def test_pairs_as_numbers_come_once_in_order_and_back() -> None:
    keys = distinct(np.array([7, 3, 7, 19, 3, 12]))
    assert keys.tolist() == [3, 7, 12, 19]
    assert [ends.tolist() for ends in split_keys(keys, 5)] == [[0, 1, 2, 3], [3, 2, 2, 4]]
    assert len(distinct(np.empty(0, np.int64))) == 0


def test_roots_follows_ways_of_any_length() -> None:
    assert roots(np.array([0, 0, 1, 2, 3, 5, 5])).tolist() == [0, 0, 0, 0, 0, 5, 5]
