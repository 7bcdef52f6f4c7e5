"""The KD-tree against brute force, against a priority queue."""

from __future__ import annotations

import heapq
from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.search.blocks import Blocks
from retrieval.search.engines import kdtree
from retrieval.search.engines.kdtree import KIND, KDTree
from retrieval.search.engines.kdtree_nodes import threshold_of
from retrieval.search.settings import IndexConfig
from tests.support.vectors import clustered


def brute_force(queries: np.ndarray, vectors: np.ndarray, k: int) -> np.ndarray:
    scores = (queries.astype(np.float64) @ vectors.T.astype(np.float64)).astype(np.float32)
    rows = np.broadcast_to(np.arange(len(vectors)), scores.shape)
    return np.lexsort((rows, -scores), axis=1)[:, :k]


def test_equals_brute_force_on_10000_by_128_with_ties() -> None:
    vectors = clustered(10_000, 128)
    vectors[9_000:9_040] = vectors[17]
    vectors[[3, 8_888]] = vectors[4]
    tree = KDTree.build(vectors)
    queries = np.concatenate([vectors[[17, 4, 500]], clustered(100, 128, seed=1)])
    for k in (1, 10, 100):
        assert (tree.search(queries, k).rows == brute_force(queries, vectors, k)).all()
    assert tree.search(vectors[17], 5).rows.tolist() == [[17, 9_000, 9_001, 9_002, 9_003]]


def test_bounds_are_never_below_a_score_and_never_worse_than_the_last_hyperplane() -> None:
    rng = np.random.default_rng(2)
    vectors, queries = clustered(1000, 16), clustered(20, 16, seed=3)
    tree = KDTree.build(vectors, leaf_size=8)
    nodes = tree.nodes
    parents = {int(child) + side: node for node, child in enumerate(nodes.child) if child >= 0 for side in (0, 1)}
    bounds = tree.leaf_bounds(queries)
    for column, leaf in enumerate(np.flatnonzero(nodes.child < 0)):
        inside = queries.astype(np.float64) @ tree.vectors[nodes.start[leaf] : nodes.end[leaf]].T
        assert (inside.max(axis=1) <= bounds[:, column]).all()
        node = parents[int(leaf)]
        weight = tree.axes[nodes.axis[node]] / tree.scale
        side = queries @ weight - threshold_of(nodes.t[node])
        outside = (side >= 0) != (leaf == nodes.child[node] + 1)
        distance = np.where(outside, np.abs(side) / np.linalg.norm(weight), 0)
        assert (bounds[:, column] <= 1 - np.maximum(distance - 1e-5, 0) ** 2 / 2 + 1e-5).all()
    scaled = vectors * rng.uniform(0.1, 9, size=(1000, 1)).astype(np.float32)
    tree = KDTree.build(scaled, leaf_size=8)
    for column, leaf in enumerate(np.flatnonzero(tree.nodes.child < 0)):
        stored = tree.vectors[tree.nodes.start[leaf] : tree.nodes.end[leaf]].astype(np.float64)
        assert ((queries * 5) @ stored.T <= tree.leaf_bounds(queries * 5)[:, [column]] + 1e-9).all()


def heap_search(tree: KDTree, query: np.ndarray, k: int) -> tuple[list[int], int]:
    """The textbook: pop the most promising node; push its children, or look at its leaf; stop when it cannot help."""
    nodes = tree.nodes
    bound_of = np.full(len(nodes.child), -np.inf)
    leaves = np.flatnonzero(nodes.child < 0)
    bound_of[leaves] = tree.leaf_bounds(query[None])[0]
    for node in range(len(nodes.child) - 1, -1, -1):  # children come after their parent
        if nodes.child[node] >= 0:
            bound_of[node] = max(bound_of[nodes.child[node]], bound_of[nodes.child[node] + 1])
    queue, best, visits = [(-bound_of[0], 0)], [], 0
    while queue:
        bound, node = heapq.heappop(queue)
        if len(best) >= k and -bound < best[k - 1][0] * -1:
            break
        child = int(nodes.child[node])
        if child >= 0:
            for one in (child, child + 1):
                heapq.heappush(queue, (-bound_of[one], one))
            continue
        visits += 1
        for position in range(nodes.start[node], nodes.end[node]):
            score = np.float32(np.dot(query.astype(np.float64), tree.vectors[position].astype(np.float64)))
            best.append((-float(score), int(tree.order[position])))
        best = sorted(best)[:k]
    return [row for _, row in best], visits


def test_equals_a_priority_queue_and_visits_hardly_more_leaves() -> None:
    """In 8 dimensions pruning works; whole rounds of leaves may cost up to twice the visits, plus the first few."""
    vectors, queries = clustered(4000, 8), clustered(40, 8, seed=5)
    tree = KDTree.build(vectors, leaf_size=16)
    found, visits = tree.search_counting(queries, 10)
    for query, rows, visited in zip(queries, found.rows, visits, strict=True):
        expected, least = heap_search(tree, query, 10)
        assert rows.tolist() == expected
        assert least <= visited <= 2 * least + 4
    assert visits.mean() < 0.35 * tree.num_leaves


def test_visit_budget_is_kept_and_recall_grows_with_it() -> None:
    vectors, queries = clustered(5000, 32), clustered(60, 32, seed=5)
    tree = KDTree.build(vectors, leaf_size=32)
    exact = brute_force(queries, vectors, 10)
    recalls = []
    for budget in (1, 4, 16, 64, tree.num_leaves):
        found, visits = tree.search_counting(queries, 10, max_visits=budget)
        assert visits.max() <= budget
        recalls.append(np.mean([len(set(a) & set(b)) for a, b in zip(found.rows, exact, strict=True)]) / 10)
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.9
    assert recalls[-1] == 1


def test_budget_too_small_for_k_leaves_the_end_open() -> None:
    vectors = clustered(400, 8)
    found = KDTree.build(vectors, leaf_size=4, max_visits=1).search(vectors[:3], 10)
    assert (found.rows[:, 0] == [0, 1, 2]).all()
    assert (found.rows[:, 4:] == -1).all()
    assert (found.scores[:, 4:] == -np.inf).all()


@pytest.mark.parametrize(
    "vectors",
    [
        np.tile(clustered(10, 8)[:1], (500, 1)),
        np.repeat(clustered(20, 8), 30, axis=0),
        np.zeros((50, 8), np.float32),
        clustered(10, 8)[:1],
        clustered(300, 8) * np.float32(1e6),
        clustered(300, 8) * np.float32(1e-6),
        np.eye(8, dtype=np.float32)[[0] * 99 + [1]],
        np.random.default_rng(0).normal(size=(300, 1)).astype(np.float32),
    ],
    ids=["all equal", "many copies", "zeros", "one", "huge", "tiny", "one stands out", "one dimension"],
)
def test_odd_collections(vectors: np.ndarray) -> None:
    tree = KDTree.build(vectors, leaf_size=8)
    queries = np.concatenate([vectors[:3], np.random.default_rng(1).normal(size=(5, vectors.shape[1]))]).astype(
        np.float32
    )
    k = min(20, len(vectors))
    assert (tree.search(queries, k).rows == brute_force(queries, vectors, k)).all()


def test_bytes_and_back() -> None:
    vectors = clustered(500, 16)
    tree = KDTree.build(vectors, leaf_size=16, max_visits=3)
    again, extra = KDTree.from_bytes(tree.to_bytes(rows=np.arange(500) * 2))
    assert (extra["rows"] == np.arange(500) * 2).all()
    assert again.max_visits == 3
    assert (again.search(vectors[:9], 5).rows == tree.search(vectors[:9], 5).rows).all()
    for broken in (b"", tree.to_bytes()[:-100], tree.to_bytes().replace(b'"axes"', b'"axis"')):
        with pytest.raises(ValueError, match="Not the bytes of a whole KD-tree"):
            KDTree.from_bytes(broken)


def test_the_file_of_a_shard_keeps_what_the_settings_asked_for(tmp_path: Path) -> None:
    vectors, folder = clustered(200, 8), Folder.of(tmp_path)
    config = IndexConfig(factory="KDTree", leaf_size=10, max_visits=3)
    folder.write_stream("s.kdtree", KIND.build(config, b"", Blocks.of(vectors, np.arange(200) * 5)))
    engine, rows = KIND.load(folder, "s.kdtree", 1, True)
    assert isinstance(engine, KDTree)
    assert rows.tolist() == list(range(0, 1000, 5))
    assert engine.max_visits == 3
    sizes = (engine.nodes.end - engine.nodes.start)[engine.nodes.child < 0]
    assert 5 <= sizes.min() <= sizes.max() <= 10
    _, visits = engine.search_counting(vectors[:20], 5)
    assert visits.max() <= 3
    _, visits = engine.search_counting(vectors[:20], 5, max_visits=1)
    assert visits.tolist() == [1] * 20


def test_vectors_come_back_by_their_position_when_built() -> None:
    vectors = clustered(300, 8)
    tree = KDTree.build(vectors, leaf_size=16)
    assert tree.vectors_of(np.empty(0, np.int64)).shape == (0, 8)
    local = np.array([299, 0, 17, 17])
    assert np.array_equal(tree.vectors_of(local), vectors[local])


def test_near_ties_are_decided_by_the_exact_score() -> None:
    """Scores that differ by less than float32 products can tell, in many leaves."""
    rng = np.random.default_rng(4)
    base = clustered(10, 64)[0]
    vectors = (base + 2e-8 * rng.normal(size=(600, 64))).astype(np.float32)
    tree = KDTree.build(vectors, leaf_size=8)
    queries = np.stack([base, base * 3, vectors[5]])
    for k in (1, 10, 100):
        assert (tree.search(queries, k).rows == brute_force(queries, vectors, k)).all()


def test_queries_are_searched_block_by_block_with_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = clustered(500, 16), clustered(30, 16, seed=2)
    tree = KDTree.build(vectors, leaf_size=8)
    whole, visits = tree.search_counting(queries, 7)
    monkeypatch.setattr(kdtree, "_BOUND_ELEMENTS", 4 * len(tree.nodes.child))
    again, visited = tree.search_counting(queries, 7)
    assert (again.rows == whole.rows).all() and (again.scores == whole.scores).all()
    assert (visited == visits).all()


def test_long_queries_and_zero_queries_are_bounded_alike() -> None:
    vectors = clustered(400, 6)
    tree = KDTree.build(vectors, leaf_size=8)
    queries = clustered(10, 6, seed=3)
    bounds = tree.leaf_bounds(queries)
    assert np.allclose(tree.leaf_bounds(queries * 50), bounds * 50, rtol=1e-6)
    assert np.isfinite(tree.leaf_bounds(queries * 0)).all()
    assert (tree.search(queries[:1] * 0, 5).rows == [[0, 1, 2, 3, 4]]).all()
