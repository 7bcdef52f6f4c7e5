"""The node rule of the KD-tree against the plain hyperplane, and the tree that is grown by it."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.search.engines.kdtree import KDTree
from retrieval.search.engines.kdtree_nodes import goes_right, sigmoid, solve_t, threshold_of
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
