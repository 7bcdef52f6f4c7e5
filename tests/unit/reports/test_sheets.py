"""Photographs side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.data.demo.places import write_scenes
from retrieval.data.settings import SplitConfig
from retrieval.evaluation import systems, tasks
from retrieval.images.pixels import encode_jpeg
from retrieval.reports import sheets, style
from retrieval.reports.sheets import Hit, SheetRow, sheet_rows
from retrieval.search import rerank
from retrieval.search.index import flat_search
from retrieval.search.ranking import Neighbours
from tests.support.figures import close_to, pixels
from tests.support.measured import write_collection, write_system
from tests.support.places import SMALL, collect


@pytest.fixture
def collection(tmp_path: Path) -> Folder:
    return write_collection(Folder.of(tmp_path / "collection"))


def test_sheets_show_the_same_queries_for_every_system(collection: Folder, tmp_path: Path) -> None:
    task = tasks.leave_one_out(collection, (5,))
    vectors = tasks.read_embeddings(write_system(Folder.of(tmp_path), collection).embeddings, task.gallery)
    sheets = []
    for sign in (1, -1):
        scaled = vectors * np.array([1, sign, 1, 1], np.float32)
        found = systems.measure(task, vectors[task.exclude], scaled, flat_search(scaled)).found
        sheets.append(sheet_rows(task, found, collection, np.array([4, 0, 2])))
    assert [row.jpeg for row in sheets[0]] == [row.jpeg for row in sheets[1]]
    assert [[hit.jpeg for hit in row.hits] for row in sheets[0]] != [
        [hit.jpeg for hit in row.hits] for row in sheets[1]
    ]
    for row in sheets[0]:
        assert len(row.hits) == 5 and row.jpeg not in [hit.jpeg for hit in row.hits]
        assert [hit.right for hit in row.hits] == [hit.label == row.label for hit in row.hits]


def test_sheet_frames_right_green_and_wrong_red() -> None:
    grey = encode_jpeg(np.full((40, 40, 3), 128, np.uint8))

    def sheet(*right: bool) -> np.ndarray:
        hits = [Hit(jpeg=grey, label="somebody with a very long name", score=0.5, right=one) for one in right]
        return pixels(sheets.sheet_jpg([SheetRow(jpeg=grey, label="q", hits=hits)], title="t"))

    for shown, green, red in ((sheet(True, True), 2, 0), (sheet(True, False), 1, 1), (sheet(False, False), 0, 2)):
        one_frame = 1000  # pixels, at least: a frame of 4 x 96 and 4 wide, less what JPEG blurs
        assert (close_to(shown, style.RIGHT) > one_frame) == (green > 0)
        assert (close_to(shown, style.WRONG) > one_frame) == (red > 0)
    full, part = sheet(*[True] * 10), sheet(True)
    assert full.shape[0] == part.shape[0] and full.shape[1] > 1.7 * part.shape[1]  # as wide as the longest row asks
    assert close_to(full, style.RIGHT) > 8 * close_to(part, style.RIGHT)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, tasks.Task]:
    root = tmp_path_factory.mktemp("places")
    split = SplitConfig(keep_singles=True, test_fraction=0.9, val_fraction=0)
    collection = collect(Folder.of(root / "c"), write_scenes(root / "photos", SMALL), split)
    return collection, tasks.leave_one_out(collection, (5,), splits=("query", "gallery"))


def test_evidence_is_points_on_both_photos(places: tuple[Folder, tasks.Task]) -> None:
    """Each of two queries with another photo of its place, as if matches had been counted between them."""
    collection, asked = places
    rows = np.full((len(asked.queries.ids), 2), -1, dtype=np.int64)
    for query in range(2):
        alike = np.flatnonzero(asked.gallery.labels == asked.queries.labels[query])
        rows[query, 1] = next(row for row in alike if row != asked.exclude[query])
    counts = np.zeros(rows.shape, dtype=np.int64)
    counts[:2, 1] = 20
    pairs = sheets.evidence(collection, asked, Neighbours(np.zeros(rows.shape, np.float32), rows), counts, 2)
    assert len(pairs) == 2
    for pair in pairs:
        assert len(pair.points[0]) == len(pair.points[1]) >= rerank.MIN_INLIERS
        assert (pair.points[0] >= 0).all()
        assert (pair.points[0] <= SMALL.size).all()
    assert sheets.matches_jpg(pairs, title="x")[:2] == b"\xff\xd8"
