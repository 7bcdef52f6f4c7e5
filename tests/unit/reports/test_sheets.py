"""Photographs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.data.demo.places import write_scenes
from retrieval.data.settings import SplitConfig
from retrieval.evaluation import systems, tasks
from retrieval.geometry import features
from retrieval.images.pixels import encode_jpeg
from retrieval.reports import sheets, style
from retrieval.reports.sheets import Hit, SheetRow, sheet_rows
from retrieval.search import rerank
from retrieval.search.ranking import Neighbours
from tests.support.asking import asking
from tests.support.figures import close_to, pixels
from tests.support.measured import photo, write_collection, write_system
from tests.support.patterns import local_patterns
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
        found = systems.measure(asking(task, vectors[task.exclude], scaled)).found
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
    rows = np.full((len(asked.queries), 2), -1, dtype=np.int64)
    for query in range(2):
        alike = np.flatnonzero(asked.gallery.codes == asked.queries.codes[query])
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


def test_a_row_is_a_query_with_its_results(collection: Folder) -> None:
    """Queries 0 (ann) and 3 (bob) of the gallery 1, 2 (ann) and 4 (bob); the second of query 3 is none."""
    task = tasks.query_gallery(collection, (3,))
    found = Neighbours(np.array([[0.9, 0.8, 0.7], [0.6, -np.inf, 0.4]], np.float32), np.array([[2, 0, 1], [2, -1, 0]]))
    first, second = sheet_rows(task, found, collection, np.array([1, 0]))
    assert (first.jpeg, first.label, second.jpeg, second.label) == (photo(0), "ann", photo(3), "bob")
    assert [(hit.jpeg, hit.label, hit.right) for hit in first.hits] == [
        (photo(4), "bob", False),
        (photo(1), "ann", True),
        (photo(2), "ann", True),
    ]
    assert [hit.score for hit in first.hits] == pytest.approx([0.9, 0.8, 0.7])
    assert [(hit.jpeg, hit.label, hit.right, round(hit.score, 3)) for hit in second.hits] == [
        (photo(4), "bob", True, 0.6),
        (photo(1), "ann", False, 0.4),
    ]
    assert [row.label for row in sheet_rows(task, found, collection, np.array([1]))] == ["bob"]


def test_what_has_no_label_is_never_right(collection: Folder) -> None:
    task = tasks.query_gallery(collection, (3,))
    task.queries.codes[0] = task.gallery.codes[0] = -1
    found = Neighbours(np.zeros((2, 1), np.float32), np.array([[0], [0]]))
    rows = sheet_rows(task, found, collection, np.arange(2))
    assert [(row.hits[0].label, row.hits[0].right) for row in rows] == [("unlabelled", False)] * 2


def test_ten_results_are_shown(collection: Folder) -> None:
    task = tasks.query_gallery(collection, (3,))
    found = Neighbours(np.zeros((2, 14), np.float32), np.tile([0, 1], (2, 7)))
    assert [len(row.hits) for row in sheet_rows(task, found, collection, np.arange(2))] == [10, 10]


def test_training_tuples_name_their_positive_and_negatives(tmp_path: Path) -> None:
    local = local_patterns(tmp_path, train=3, val=0, query=0)
    rows, scores = np.array([[0, 3, 5, 8], [7, 1, 2, 4]]), np.array([[0.9, 0.5, 0.4], [0.3, 0.2, 0.1]])
    first, second = sheets.tuple_rows(local, rows, scores)
    assert (first.jpeg, second.jpeg) == tuple(local.jpegs([0, 7])) and first.label == local.image_ids[0]
    assert [hit.jpeg for hit in second.hits] == local.jpegs([1, 2, 4])
    assert [(hit.label, hit.right, hit.score) for hit in first.hits] == [
        ("positive", True, 0.9),
        ("negative", False, 0.5),
        ("negative", False, 0.4),
    ]


def test_captions_are_marked_scored_and_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(sheets, "caption", lambda axes, x, top, text, color: said.append(text))
    hits = [
        Hit(jpeg=photo(1), label="ann", score=0.123, right=True),
        Hit(jpeg=photo(2), label="bob", score=1, right=False),
    ]
    sheets.sheet_jpg([SheetRow(jpeg=photo(0), label="q", hits=hits)], title="t")
    assert said == ["query q", "✓ 0.12  ann", "✗ 1.00  bob"]
    monkeypatch.undo()
    _, (axes,) = style.new_figure(1)
    sheets.caption(axes, 0, 0, "x" * 19, style.INK)
    sheets.caption(axes, 0, 0, "y" * 20, style.INK)
    assert [text.get_text() for text in axes.texts] == ["x" * 19, "y" * 18 + "…"]


def test_a_photo_keeps_its_shape_in_its_frame() -> None:
    _, (axes,) = style.new_figure(1)
    wide = encode_jpeg(np.zeros((40, 80, 3), np.uint8))
    sheets.thumbnail(axes, wide, 2.0, 1.0, 96, style.INK, 1.0)
    left, right, bottom, top = axes.images[0].get_extent()
    assert (right - left, bottom - top) == (pytest.approx(0.86), pytest.approx(0.43))
    assert ((left + right) / 2, (bottom + top) / 2) == (pytest.approx(2.43), pytest.approx(1.43))


def test_matching_points_are_joined_across_the_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left 30 wide and 20 high, right 10 wide and 40 high: the right one's points move by 30 and the gap of 12."""
    seen: list[Any] = []
    real = sheets.saved

    def spy(figure: Any, kind: str) -> bytes:
        seen.extend(figure.axes)
        return real(figure, kind)

    monkeypatch.setattr(sheets, "saved", spy)
    jpegs = tuple(encode_jpeg(np.full((*shape, 3), 50, np.uint8)) for shape in ((20, 30), (40, 10)))
    points = (np.array([[1.0, 2], [29, 19]]), np.array([[3.0, 4], [9, 39]]))
    one = sheets.MatchedPhotos(jpegs=jpegs, points=points, caption="a and b")  # type: ignore[arg-type]
    sheets.matches_jpg([one, one], title="t")
    assert len(seen) == 2 and seen[0].get_title() == "a and b: 2 points fit one geometry"
    whole = seen[0].images[0].get_array()
    assert whole.shape == (40, 52, 3)
    assert (whole[30, 5] == 255).all() and (whole[10, 35] == 255).all() and (whole[30, 45] < 90).all()
    ends = [np.stack([line.get_xdata(), line.get_ydata()], axis=1).tolist() for line in seen[0].get_lines()]
    assert ends == [[[1, 2], [45, 4]], [[29, 19], [51, 39]]]


def test_evidence_is_the_best_result_of_the_queries_with_most(
    collection: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five queries by falling counts, each with its best column; below the least that counts there is none."""
    task = tasks.leave_one_out(collection, (3,))

    class Features:
        def __init__(self, jpeg: bytes, max_features: int) -> None:
            self.jpeg = jpeg
            self.keypoints = np.arange(12.0).reshape(3, 4) + len(extracted)
            extracted.append((jpeg, max_features))

    class Verified:
        matches = np.array([[0, 2], [1, 0]])

    extracted: list[tuple[bytes, int]] = []
    monkeypatch.setattr(features, "extract", Features)
    monkeypatch.setattr(sheets, "verify_plane", lambda first, second: Verified())
    rows = np.array([[1, 2, 5], [0, 2, 3], [0, 1, 4], [4, 0, 1], [3, 0, 5]])
    counts = np.array([[3, 14, 2], [20, 0, 30], [15, 15, 0], [0, 0, 0], [0, 30, 29]])
    found = Neighbours(np.zeros(rows.shape, np.float32), rows)
    pairs = sheets.evidence(collection, task, found, counts, 9)
    assert [pair.caption for pair in pairs] == ["1.jpg and 3.jpg", "4.jpg and 0.jpg", "2.jpg and 0.jpg"]
    assert [pair.jpegs for pair in pairs] == [(photo(1), photo(3)), (photo(4), photo(0)), (photo(2), photo(0))]
    assert extracted[:2] == [(photo(1), 1024), (photo(3), 1024)]
    first, second = pairs[0].points
    assert first.tolist() == [[0, 1], [4, 5]] and second.tolist() == [[9, 10], [1, 2]]
    assert len(sheets.evidence(collection, task, found, counts, 1)) == 1
    with pytest.raises(ValueError, match="holds no features of row 0 of part 1"):
        sheets.evidence(collection, task, found, counts, 1, collection)
