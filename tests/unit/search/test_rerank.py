"""Geometric re-ranking on drawn places: photos of the query's building come first."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.data.demo.places import write_scenes
from retrieval.data.settings import SplitConfig
from retrieval.evaluation import tasks
from retrieval.search import rerank
from retrieval.search.ranking import Neighbours
from tests.support.places import SMALL, collect


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, tasks.Task]:
    root = tmp_path_factory.mktemp("rerank")
    split = SplitConfig(keep_singles=True, test_fraction=0.9, val_fraction=0)
    collection = collect(Folder.of(root / "c"), write_scenes(root / "photos", SMALL), split)
    return collection, tasks.leave_one_out(collection, (5,), splits=("query", "gallery"))


def random_ranking(task: tasks.Task) -> Neighbours:
    rng = np.random.default_rng(0)
    rows = np.stack([rng.permutation(len(task.gallery.ids))[:12] for _ in task.queries.ids])
    return Neighbours(np.tile(np.linspace(1, 0, 12, dtype=np.float32), (len(rows), 1)), rows)


def test_a_random_ranking_is_put_right(task: tuple[Folder, tasks.Task]) -> None:
    collection, asked = task
    found = random_ranking(asked)
    some = list(range(0, len(asked.queries.ids), 4))
    counts = rerank.count_inliers(
        collection, asked.queries.places(np.array(some)), asked.gallery.places(found.rows[some])
    )
    labels, gallery = asked.queries.labels, asked.gallery.labels
    for at, query in enumerate(some):
        own = np.array([gallery[row] == labels[query] for row in found.rows[query]])
        itself = found.rows[query] == asked.exclude[query]
        ordered = rerank.order_by_inliers(found.rows[query], np.where(itself, 0, counts[at]))
        hits = [gallery[row] == labels[query] for row in ordered[: (own & ~itself).sum()]]
        assert all(hits[: max(1, len(hits) - 2)]) or not (own & ~itself).any()
        assert sorted(ordered) == sorted(found.rows[query])


def test_few_matches_change_nothing() -> None:
    rows = np.array([5, 3, 9, 1])
    assert rerank.order_by_inliers(rows, np.array([14, 0, 13])).tolist() == [5, 3, 9, 1]
    assert rerank.order_by_inliers(rows, np.array([0, 15, 15, 90])).tolist() == [1, 3, 9, 5]


def test_scores_go_with_their_rows() -> None:
    backwards = Neighbours(np.array([[3.0, 2, 1]], np.float32), np.array([[4, 5, 6]]))
    moved = rerank.rerank(backwards, np.array([[0, 0, 30]]))
    assert (moved.rows.tolist(), moved.scores.tolist()) == ([[6, 4, 5]], [[1.0, 3.0, 2.0]])
