"""Ranks counted piece by piece are those of sorting everything."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.evaluation import tasks
from retrieval.evaluation.pieces import ranks
from retrieval.search.index import flat_search
from tests.support.asking import in_pieces


def slow_ranks(vectors: np.ndarray, query: np.ndarray, row: np.ndarray) -> list[int]:
    """Where each row stands in its query's list, itself left out, by sorting all of it."""
    found = []
    for asks, wanted in zip(query, row, strict=True):
        scores = (vectors.astype(np.float64) @ vectors[asks].astype(np.float64)).astype(np.float32)
        order = [other for other in np.argsort(-scores, kind="stable") if other != asks]
        found.append(order.index(wanted))
    return found


@pytest.mark.parametrize(("num", "tile"), [(1, 1 << 14), (3, 1 << 14), (1, 16), (5, 8)])
def test_ranks_are_those_of_sorting_everything(
    crowd: tuple[tasks.Task, np.ndarray], num: int, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, vectors = crowd
    monkeypatch.setattr(ranks, "_TILE", tile)
    monkeypatch.setattr(ranks, "_AT_ONCE", 640)
    query, row = ranks.Positives(task.gallery.codes).pairs(task.queries.codes, task.exclude)
    found, best = in_pieces(vectors, num).rank(vectors, task.exclude, query, row, 4)
    assert found.tolist() == slow_ranks(vectors, query, row)
    wanted = flat_search(vectors)(vectors, 4)
    assert np.array_equal(best.rows, wanted.rows) and np.array_equal(best.scores, wanted.scores)
