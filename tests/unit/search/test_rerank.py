"""Geometric re-ranking on drawn places: photos of the query's building come first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.collection import Jpegs
from retrieval.artifacts.folder import Folder, part_name
from retrieval.data.demo.places import write_scenes
from retrieval.data.settings import SplitConfig
from retrieval.evaluation import tasks
from retrieval.geometry import extraction, features
from retrieval.geometry.settings import FeatureConfig
from retrieval.search import rerank
from retrieval.search.ranking import Neighbours
from tests.support.patterns import make_patterns
from tests.support.places import SMALL, collect


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, tasks.Task]:
    root = tmp_path_factory.mktemp("rerank")
    split = SplitConfig(keep_singles=True, test_fraction=0.9, val_fraction=0)
    collection = collect(Folder.of(root / "c"), write_scenes(root / "photos", SMALL), split)
    return collection, tasks.leave_one_out(collection, (5,), splits=("query", "gallery"))


def random_ranking(task: tasks.Task) -> Neighbours:
    rng = np.random.default_rng(0)
    rows = np.stack([rng.permutation(len(task.gallery))[:12] for _ in range(len(task.queries))])
    return Neighbours(np.tile(np.linspace(1, 0, 12, dtype=np.float32), (len(rows), 1)), rows)


def test_a_random_ranking_is_put_right(task: tuple[Folder, tasks.Task]) -> None:
    collection, asked = task
    found = random_ranking(asked)
    some = list(range(0, len(asked.queries), 4))
    counts = rerank.count_inliers(
        collection, asked.queries.places(np.array(some)), asked.gallery.places(found.rows[some])
    )
    labels, gallery = asked.queries.codes, asked.gallery.codes
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


@dataclass(frozen=True)
class Fits:
    num_inliers: int


def test_each_photo_is_looked_at_once_and_each_pair_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features are the photo's place, and fit as often as their two numbers say."""
    make_patterns(tmp_path / "c", train=3, val=0, query=1, shots=4, part_size=5)
    collection = Folder.of(tmp_path / "c")
    stored = {}
    for part in range(4):
        jpegs = collection.read_table(f"images/{part_name(part)}", columns=["jpeg"])["jpeg"].to_pylist()
        stored |= {jpeg: (part, row) for row, jpeg in enumerate(jpegs)}
    seen, sizes = [], set()

    def extract(jpeg: bytes, *, max_features: int) -> tuple[int, int]:
        seen.append(stored[jpeg])
        sizes.add(max_features)
        return stored[jpeg]

    def verify_plane(one: tuple[int, int], two: tuple[int, int]) -> Fits:
        return Fits(1000 * one[0] + 100 * one[1] + 10 * two[0] + two[1])

    monkeypatch.setattr(features, "extract", extract)
    monkeypatch.setattr(rerank, "verify_plane", verify_plane)
    asked = np.array([[3, 0], [1, 4]])
    found = np.array([[[1, 4], [0, 2], [-1, -1]], [[-1, -1], [3, 0], [2, 1]]])
    counts = rerank.count_inliers(collection, asked, found, max_features=77)
    assert counts.tolist() == [[3014, 3002, 0], [0, 1430, 1421]]
    assert sorted(seen) == [(0, 2), (1, 4), (2, 1), (3, 0)]
    assert sizes == {77}


def test_kept_features_count_as_those_taken_now(task: tuple[Folder, tasks.Task], tmp_path: Path) -> None:
    """SIFT of 300 points: whether taken of each photo then, or once before; and no photo is read again."""
    collection, asked = task
    out, config = Folder.of(tmp_path), FeatureConfig(max_features=300)
    parts, _ = extraction.parts_of(collection, ("query", "gallery"))
    for part in parts:
        extraction.extract_part(collection, out, part, ("query", "gallery"), config)
    queries = asked.queries.places(np.arange(3))
    found = asked.gallery.places(np.array([[4, 1, 2], [3, 0, -1], [1, -1, 0]]))
    counts = rerank.count_inliers(collection, queries, found, max_features=300)
    assert counts.max() > 15 and counts[1, 2] == counts[2, 1] == 0
    assert rerank.count_inliers(Folder.of(tmp_path / "gone"), queries, found, out).tolist() == counts.tolist()


def test_only_the_first_results_move_and_ties_stay() -> None:
    rows = np.array([5, 3, 9, 1, 8])
    assert rerank.order_by_inliers(rows, np.array([20, 20, 21])).tolist() == [9, 5, 3, 1, 8]
    assert rerank.order_by_inliers(rows, np.array([2, 3, 4]), min_inliers=3).tolist() == [9, 3, 5, 1, 8]
    assert rerank.order_by_inliers(rows, np.empty(0, np.int64)).tolist() == rows.tolist()
    found = Neighbours(np.tile(np.array([[4, 3, 2, 1]], np.float32), (2, 1)), np.array([[1, 2, 3, 4], [5, 6, 7, 8]]))
    moved = rerank.rerank(found, np.array([[0, 15], [16, 17]]))
    assert moved.rows.tolist() == [[2, 1, 3, 4], [6, 5, 7, 8]]
    assert moved.scores.tolist() == [[3, 4, 2, 1], [3, 4, 2, 1]]
    assert rerank.rerank(found, np.array([[9, 9], [9, 12]]), min_inliers=10).rows.tolist() == [
        [1, 2, 3, 4],
        [6, 5, 7, 8],
    ]
    wide = rerank.rerank(found, np.array([[0, 0, 0, 30, 99, 99]] * 2))
    assert wide.rows.tolist() == [[4, 1, 2, 3], [8, 5, 6, 7]]


def test_evidence_is_what_verification_counts(task: tuple[Folder, tasks.Task]) -> None:
    collection, asked = task
    places = asked.queries.places(np.arange(6))
    jpegs = Jpegs(collection).read((int(part), int(row)) for part, row in places)
    query, *crops = [jpegs[int(part), int(row)] for part, row in places]
    found = rerank.verify_each(query, [query, *crops], 60.0)
    counts = rerank.count_inliers(collection, places[:1], places[None])
    assert [one.num_inliers for one in found if one is not None] == counts[0].tolist()
    itself = found[0]
    assert itself is not None and itself.matches.shape == (itself.num_inliers, 4)
    assert itself.num_inliers > 50
    assert np.abs(itself.matches[:, :2] - itself.matches[:, 2:]).max() < 1e-3, "a photo lies on itself"


def test_without_time_nothing_is_said(task: tuple[Folder, tasks.Task]) -> None:
    collection, asked = task
    (place,) = asked.queries.places(np.arange(1))
    jpeg = next(iter(Jpegs(collection).read([(int(place[0]), int(place[1]))]).values()))
    assert rerank.verify_each(jpeg, [jpeg, jpeg], 0.0) == [None, None]
    assert rerank.verify_each(jpeg, [], 1.0) == []


def test_when_nobody_waits_any_more_no_pair_is_begun(task: tuple[Folder, tasks.Task]) -> None:
    collection, asked = task
    (place,) = asked.queries.places(np.arange(1))
    jpeg = next(iter(Jpegs(collection).read([(int(place[0]), int(place[1]))]).values()))
    waits = iter([False, True, True])
    found = rerank.verify_each(jpeg, [jpeg] * 3, 60.0, lambda: next(waits))
    assert found[0] is not None and found[1:] == [None, None]
