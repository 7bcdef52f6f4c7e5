"""Tuples: which candidate becomes a query's positive."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from retrieval.artifacts.tuples import TupleSet
from retrieval.training.tuple_mining import choose_positives, draw_epoch, mine_negatives


def made() -> TupleSet:
    """a and b share 4 points at like scale; c, twice as large, shares 2 with each; d and e have no candidate."""
    shared, change = [[4, 2], [4, 2], [2, 2]], [[1.1, 2.0], [1.1, 1.818], [2.0, 1.818]]
    return TupleSet(
        image_ids=list("abcde"),
        clusters=np.array([0, 0, 0, 0, 1]),
        splits=np.array(["train"] * 5, dtype=object),
        usable=np.ones(5, bool),
        queries=np.array([0, 1, 2]),
        candidates=[np.array(rows) for rows in ([1, 2], [0, 2], [0, 1])],
        shared_points=[np.array(numbers) for numbers in shared],
        scale_change=[np.array(ratios) for ratios in change],
    )


def test_positives_by_each_method() -> None:
    found = made()
    name = np.array(found.image_ids, dtype=object)
    descriptors = np.eye(5)[[0, 1, 0, 3, 4]]  # c looks like a
    assert name[choose_positives(found, "m1", descriptors=descriptors)].tolist() == ["c", "a", "a"]
    assert name[choose_positives(found, "m2")].tolist() == ["b", "a", "a"]
    assert name[choose_positives(found, "m3", max_scale_change=1.5)][:2].tolist() == ["b", "a"]
    assert choose_positives(found, "m3", max_scale_change=1.5)[2] == -1  # c appears too large beside both
    assert choose_positives(found, "m3", max_scale_change=3, min_shared=0.9)[0] == 1  # c shares half of what b does
    drawn = {int(choose_positives(found, "m3", max_scale_change=3, seed=seed)[0]) for seed in range(20)}
    assert drawn == {1, 2}
    with pytest.raises(ValueError, match="m1 need a descriptor of every image"):
        choose_positives(found, "m1")


# -- mining ----------------------------------------------------------------------------------------------------------


def slow(query: Tensor, cluster: int, pool: Tensor, clusters: np.ndarray, num: int, strategy: str) -> list[int]:
    order = sorted(range(len(pool)), key=lambda row: (-float(query @ pool[row]), row))
    kept: list[int] = []
    for row in order:
        taken = {cluster} | ({int(clusters[k]) for k in kept} if strategy == "N2" else set())
        if int(clusters[row]) not in taken and len(kept) < num:
            kept.append(row)
    return kept


@pytest.mark.parametrize("strategy", ["N1", "N2"])
@pytest.mark.parametrize("num", [1, 5])
def test_negatives_are_those_of_the_slow_definition(strategy: str, num: int) -> None:
    torch.manual_seed(0)
    # Whole numbers: many ties, and exact sums.
    pool, queries = torch.randint(-2, 3, (200, 6)).float(), torch.randint(-2, 3, (20, 6)).float()
    clusters = np.random.default_rng(0).integers(0, 9, size=200)
    own = np.random.default_rng(1).integers(0, 9, size=20)
    got = mine_negatives(queries, own, pool, clusters, num=num, strategy=strategy)  # type: ignore[arg-type]
    sums = [[float(queries[q] @ pool[row]) for row in got[q]] for q in range(20)]
    for q in range(20):
        want = slow(queries[q], int(own[q]), pool, clusters, num, strategy)
        assert sums[q] == [float(queries[q] @ pool[row]) for row in want]
        assert int(own[q]) not in {int(clusters[row]) for row in got[q]}
        if strategy == "N2":
            assert len({int(clusters[row]) for row in got[q]}) == num


def test_too_few_clusters_say_so() -> None:
    pool, clusters = torch.eye(8), np.array([0, 0, 1, 1, 2, 2, 3, 3])
    with pytest.raises(ValueError, match="3 clusters other than the query's, expected at least 5.*N1"):
        mine_negatives(pool[:1], clusters[:1], pool, clusters, num=5)
    assert mine_negatives(pool[:1], clusters[:1], pool, clusters, num=5, strategy="N1").shape == (1, 5)


def test_an_epoch_draws_alike_and_another_differently() -> None:
    queries, pool = np.arange(100), np.arange(500)
    one, again, two = (draw_epoch(queries, pool, num_queries=20, pool_size=50, seed=3, epoch=e) for e in (1, 1, 2))
    assert one.queries.tolist() == again.queries.tolist() != two.queries.tolist()
    assert len(set(one.queries)) == 20
    assert one.pool.tolist() == sorted(set(again.pool))
    assert len(two.pool) == 50
