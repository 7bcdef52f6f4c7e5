"""Tuples: which candidate becomes a query's positive."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.artifacts.tuples import TupleSet
from retrieval.training.tuple_mining import choose_positives


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
