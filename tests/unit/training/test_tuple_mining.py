"""Which photos siamese training uses: positives, negatives, draws and what is validated, beside slow loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from retrieval.artifacts.tuples import TupleSet
from retrieval.training import tuple_mining
from retrieval.training.tuple_mining import (
    beyond_margin,
    choose_positives,
    draw_epoch,
    mine_negatives,
    rows_among,
    validated_rows,
)


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


def test_a_draw_depends_on_seed_and_epoch_and_takes_only_what_it_is_given() -> None:
    queries, pool = np.arange(100, 200), np.arange(500, 900)

    def draw(seed: int, epoch: int) -> tuple[list[int], list[int]]:
        made = draw_epoch(queries, pool, num_queries=20, pool_size=50, seed=seed, epoch=epoch)
        return made.queries.tolist(), made.pool.tolist()

    first = draw(3, 1)
    assert set(first[0]) <= set(queries.tolist()) and set(first[1]) <= set(pool.tolist())
    assert len(set(first[0])) == 20 and len(set(first[1])) == 50
    assert first[0] != sorted(first[0])  # in the order of training
    for other in (draw(4, 1), draw(3, 2)):
        assert other[0] != first[0] and other[1] != first[1]
    everything = draw_epoch(queries, pool, num_queries=500, pool_size=5000, seed=0, epoch=1)
    assert sorted(everything.queries) == queries.tolist() and everything.pool.tolist() == pool.tolist()


def test_negatives_are_alike_whatever_the_blocks_and_how_deep_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """The query's own cluster fills the first places: the search goes deeper until it has enough, to the last image."""
    generator = torch.Generator().manual_seed(2)
    queries, pool = torch.randn(9, 4, generator=generator), torch.randn(300, 4, generator=generator)
    clusters = np.zeros(300, dtype=np.int64)
    clusters[[7, 150, 299]] = [1, 2, 3]
    own = np.array([0, 0, 0, 0, 1, 2, 3, 0, 1])
    expected = [slow(query, int(mine), pool, clusters, 3, "N2") for query, mine in zip(queries, own)]
    assert mine_negatives(queries, own, pool, clusters, num=3).tolist() == expected
    monkeypatch.setattr(tuple_mining, "_BLOCK", 4)
    assert mine_negatives(queries, own, pool, clusters, num=3).tolist() == expected


def test_equal_negatives_come_in_order_of_row() -> None:
    pool, clusters = torch.ones(40, 2), np.arange(40)
    found = mine_negatives(torch.ones(2, 2), np.array([0, 3]), pool, clusters, num=3)
    assert found.tolist() == [[1, 2, 3], [0, 1, 2]]


def test_unknown_negatives_are_named() -> None:
    with pytest.raises(ValueError, match="Unknown negatives 'N3'. Choose N1 or N2"):
        mine_negatives(torch.eye(2), np.array([0, 1]), torch.eye(2), np.array([0, 1]), num=1, strategy="N3")  # type: ignore[arg-type]


def test_n1_counts_images_of_other_clusters() -> None:
    pool, clusters = torch.eye(6), np.array([0, 0, 0, 0, 1, 1])
    assert mine_negatives(pool[:1], clusters[:1], pool, clusters, num=2, strategy="N1").tolist() == [[4, 5]]
    with pytest.raises(ValueError, match="2 images of clusters other than the query's, expected at least 3"):
        mine_negatives(pool[:1], clusters[:1], pool, clusters, num=3, strategy="N1")


def test_m3_takes_what_lies_on_its_bounds_and_nothing_beyond() -> None:
    found = made()
    # c shares 2 of 4 points with a, at twice the scale
    for shared, change, both in ((0.5, 2.0, True), (0.51, 2.0, False), (0.5, 1.99, False)):
        options = [
            choose_positives(found, "m3", min_shared=shared, max_scale_change=change, seed=s)[0] for s in range(20)
        ]
        assert set(options) == ({1, 2} if both else {1})


def test_a_positive_s_draw_depends_on_its_own_query_alone() -> None:
    found = made()
    fewer = TupleSet(
        image_ids=found.image_ids, clusters=found.clusters, splits=found.splits, usable=found.usable,
        queries=found.queries[1:], candidates=found.candidates[1:], shared_points=found.shared_points[1:],
        scale_change=found.scale_change[1:],
    )  # fmt: skip
    for seed in range(8):
        whole = choose_positives(found, "m3", max_scale_change=3, seed=seed)
        assert choose_positives(fewer, "m3", max_scale_change=3, seed=seed).tolist() == whole[1:].tolist()


def test_a_query_without_a_candidate_has_no_positive_and_m1_wants_every_descriptor() -> None:
    found = made()
    lonely = TupleSet(
        image_ids=found.image_ids, clusters=found.clusters, splits=found.splits, usable=found.usable,
        queries=np.array([3, 0]), candidates=[np.empty(0, np.int64), found.candidates[0]],
        shared_points=[np.empty(0, np.int64), found.shared_points[0]],
        scale_change=[np.empty(0), found.scale_change[0]],
    )  # fmt: skip
    for method in ("m1", "m2", "m3"):
        assert choose_positives(lonely, method, descriptors=np.eye(5))[0] == -1  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="descriptor of every image"):
        choose_positives(found, "m1", descriptors=np.eye(5)[:4])


def test_what_lies_beyond_the_margin_is_by_distance_to_its_own_query(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(4)
    queries, pool = torch.randn(7, 3, generator=generator), torch.randn(20, 3, generator=generator)
    negatives = np.random.default_rng(0).integers(0, 20, (7, 4))
    expected = [
        [sum((float(a) - float(b)) ** 2 for a, b in zip(queries[t], pool[row])) ** 0.5 >= 2.0 for row in negatives[t]]
        for t in range(7)
    ]
    assert 0 < np.sum(expected) < 28
    assert beyond_margin(queries, pool, negatives, 2.0).tolist() == expected
    monkeypatch.setattr(tuple_mining, "_BLOCK", 2)
    assert beyond_margin(queries, pool, negatives, 2.0).tolist() == expected
    on = beyond_margin(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2), np.array([[0]]), 5.0)
    assert on.tolist() == [[True]]  # its loss is zero at the margin too


def places(val: tuple[int, ...] = (4, 5)) -> TupleSet:
    """Photos 0 to 11 of clusters of two; those of `val` validate. 11 is no query and nobody's candidate."""
    clusters = np.arange(12) // 2
    queries = np.arange(11)
    return TupleSet(
        image_ids=[f"{row:02d}" for row in range(12)],
        clusters=clusters,
        splits=np.array(["val" if cluster in val else "train" for cluster in clusters], dtype=object),
        usable=np.ones(12, bool),
        queries=queries,
        candidates=[np.array([row ^ 1]) if row != 10 else np.empty(0, np.int64) for row in queries],
        shared_points=[np.array([9])] * 11,
        scale_change=[np.array([1.0])] * 11,
    )


def test_val_is_ranked_among_its_own_and_drawn_images_of_train() -> None:
    known, pool = places(), np.arange(8)
    assert validated_rows(known, pool, num_distractors=0, seed=0).tolist() == [8, 9, 10]
    drawn = {tuple(validated_rows(known, pool, num_distractors=3, seed=seed)) for seed in range(10)}
    assert len(drawn) > 3
    for rows in drawn:
        assert list(rows) == sorted(set(rows)) and len(rows) == 6 and rows[3:] == (8, 9, 10)
    again = validated_rows(known, pool, num_distractors=3, seed=0)
    assert again.tolist() == validated_rows(known, pool, num_distractors=3, seed=0).tolist()
    assert validated_rows(known, pool, num_distractors=99, seed=0).tolist() == [*range(8), 8, 9, 10]


def test_candidates_of_val_that_are_no_queries_are_ranked_too() -> None:
    known = places()
    known.candidates[10] = np.array([11])  # type: ignore[index]
    assert validated_rows(known, np.arange(8), num_distractors=0, seed=0).tolist() == [8, 9, 10, 11]
    assert validated_rows(places(val=()), np.arange(8), num_distractors=5, seed=0).tolist() == []


def test_rows_are_found_by_name_wherever_they_lie() -> None:
    known = made()
    assert rows_among(known, ["x", "e", "d", "c", "y", "b", "a"]).tolist() == [6, 5, 3, 2, 1]
    with pytest.raises(ValueError, match="2 of the 5 photos of the tuples are not in the collection.*example b"):
        rows_among(known, np.array(["a", "c", "d"], dtype=object))
