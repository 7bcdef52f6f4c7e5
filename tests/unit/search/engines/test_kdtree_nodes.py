"""The node rule of the KD-tree against the plain hyperplane, and the tree that is grown by it."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.search.engines.kdtree import KDTree
from retrieval.search.engines.kdtree_nodes import goes_right, grow, sigmoid, solve_t, threshold_of
from tests.support.vectors import clustered


def test_node_rule_is_the_hyperplane_at_t_plus_logit_t() -> None:
    rng = np.random.default_rng(0)
    projection, t = rng.uniform(-12, 12, 200_000), rng.uniform(1e-6, 1 - 1e-6, 200_000)
    assert (goes_right(projection, t) == (projection >= threshold_of(t))).all()
    assert 0.2 < goes_right(projection, t).mean() < 0.8


def test_node_rule_by_hand() -> None:
    """sigmoid(0.5 - 0.5) - 0.5 = 0, and zero goes right; t = 0.5 has its threshold at 0.5."""
    assert threshold_of(0.5) == 0.5
    assert [bool(goes_right(p, 0.5)) for p in (0.5, 0.5001, 0.4999)] == [True, True, False]
    assert threshold_of(0.9) == pytest.approx(0.9 + np.log(9))


@pytest.mark.parametrize("threshold", [-7.0, -1.0, -0.3, 0.0, 1e-9, 0.5, 1.0, 7.0])
def test_every_threshold_has_its_t(threshold: float) -> None:
    t = solve_t(threshold)
    assert 0 < t < 1
    assert threshold_of(t) == pytest.approx(threshold, abs=1e-12)


def test_sigmoid_does_not_overflow() -> None:
    assert np.asarray(sigmoid(np.array([-1e4, 0, 1e4]))).tolist() == [0.0, 0.5, 1.0]


# The tree.


def test_every_node_sends_its_vectors_where_the_rule_says_and_splits_evenly() -> None:
    vectors = clustered(3000, 24)
    tree = KDTree.build(vectors, leaf_size=20)
    nodes = tree.nodes
    for node in np.flatnonzero(nodes.child >= 0):
        weight = tree.axes[nodes.axis[node]] / tree.scale
        left, right = nodes.child[node], nodes.child[node] + 1
        assert (nodes.start[node], nodes.end[node]) == (nodes.start[left], nodes.end[right])
        inside = tree.vectors[nodes.start[node] : nodes.end[node]] @ weight
        went_right = np.arange(nodes.start[node], nodes.end[node]) >= nodes.start[right]
        clear = np.abs(inside - threshold_of(nodes.t[node])) > 1e-6  # the build projects in float32
        assert (goes_right(inside, nodes.t[node]) == went_right)[clear].all()
        assert abs(2 * went_right.sum() - len(went_right)) <= 1
    assert (nodes.end - nodes.start)[nodes.child < 0].max() <= 20
    assert sorted(tree.order) == list(range(3000))


def test_axes_are_those_of_most_variance_about_the_mean() -> None:
    """A cloud far from the origin, wide along the third axis, less so along the first."""
    rng = np.random.default_rng(1)
    vectors = (rng.normal(size=(500, 4)) * [3, 0.1, 9, 0.1] + [50, 80, 0, 0]).astype(np.float32)
    nodes, axes, scale, order = grow(vectors, 250)
    assert np.allclose(axes @ axes.T, np.eye(4), atol=1e-9)
    assert np.abs(axes[0, 2]) == pytest.approx(1, abs=0.01) and np.abs(axes[1, 0]) == pytest.approx(1, abs=0.01)
    assert nodes.axis[0] == 0
    assert np.abs(vectors @ axes.T).max() / scale == pytest.approx(1, rel=1e-5)
    assert sorted(order.tolist()) == list(range(500))
    halves = np.sign(vectors[order] @ axes[0] - np.median(vectors @ axes[0]))
    assert (halves[:250] <= 0).all() and (halves[250:] >= 0).all()


def test_only_the_leading_axes_are_kept() -> None:
    vectors = np.random.default_rng(2).normal(size=(300, 80)).astype(np.float32)
    vectors[:, 79] *= 20
    _, axes, _, _ = grow(vectors, 300)
    assert axes.shape == (64, 80)
    assert np.abs(axes[0, 79]) > 0.99


FULL = [(64, 64, 1), (65, 64, 2), (128, 64, 2), (129, 64, 3), (8, 1, 8)]


@pytest.mark.parametrize(("num", "leaf_size", "leaves"), FULL)
def test_leaves_are_as_full_as_they_may_be(num: int, leaf_size: int, leaves: int) -> None:
    vectors = np.random.default_rng(3).normal(size=(num, 5)).astype(np.float32)
    nodes, *_ = grow(vectors, leaf_size)
    assert (nodes.child < 0).sum() == leaves


def test_a_node_s_extents_and_norms_hold_what_is_in_it() -> None:
    """Each node: its vectors lie within low and high along its axis, its children's on their side of the hyperplane."""
    vectors = clustered(600, 12) * np.random.default_rng(5).uniform(0.5, 3, size=(600, 1)).astype(np.float32)
    nodes, axes, _, order = grow(vectors, 20)
    stored = vectors[order].astype(np.float64)
    exact = stored @ axes.T
    for node, child in enumerate(nodes.child):
        inside = slice(nodes.start[node], nodes.end[node])
        assert nodes.max_norm[node] == np.linalg.norm(stored[inside], axis=1).max()
        if child < 0:
            continue
        axis = nodes.axis[node]
        left = exact[nodes.start[node] : nodes.end[child], axis]
        right = exact[nodes.start[child + 1] : nodes.end[node], axis]
        assert nodes.low[node] <= left.min() and right.max() <= nodes.high[node]
        assert left.max() <= nodes.left_high[node] <= left.max() + 1e-4
        assert right.min() - 1e-4 <= nodes.right_low[node] <= right.min()


def test_children_know_the_hyperplanes_above_them() -> None:
    """On one axis, each node's extent is what its ancestors have left of the line."""
    vectors = np.sort(np.random.default_rng(6).normal(size=(64, 1)), axis=0).astype(np.float32)
    nodes, *_ = grow(vectors, 8)
    bounded = {0: (-np.inf, np.inf)}
    for node, child in enumerate(nodes.child):
        low, high = bounded[node]
        if child < 0:
            continue
        assert nodes.low[node] == pytest.approx(low, abs=1e-4) and nodes.high[node] == pytest.approx(high, abs=1e-4)
        bounded[int(child)] = (low, nodes.left_high[node])
        bounded[int(child) + 1] = (nodes.right_low[node], high)
