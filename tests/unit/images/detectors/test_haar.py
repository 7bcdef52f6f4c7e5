"""Cascades are searched at growing sizes; drawn faces are found where they were drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retrieval.data.demo.people import sample_person, sample_shot
from retrieval.data.demo.portrait import background, landmarks, render
from retrieval.images.boxes import overlap
from retrieval.images.detectors.face import Face
from retrieval.images.detectors.haar import HaarDetector, merge_boxes
from retrieval.images.pixels import resize
from retrieval.images.settings import Box, DetectorConfig


def drawn(identity: int, size: tuple[int, int] = (178, 218)) -> tuple[np.ndarray, np.ndarray]:
    """A drawn portrait and its five landmarks, (5, 2)."""
    person = sample_person(0, identity)
    shot = sample_shot(0, identity, 0, person)
    return render(person, shot, size), np.array(landmarks(person, shot, size))


def test_drawn_faces_are_found_once_and_around_their_landmarks() -> None:
    detector = HaarDetector()
    good = 0
    for identity in range(20):
        image, points = drawn(identity)
        boxes = [face.box for face in detector.detect(image)]
        good += len(boxes) == 1 and all(
            boxes[0][0] < x < boxes[0][2] and boxes[0][1] < y < boxes[0][3] for x, y in points
        )
    assert good >= 18


def test_no_face_in_a_background() -> None:
    picture = background(np.random.default_rng(0), (178, 218))
    pixels = (255 * np.clip(picture.transpose(1, 2, 0), 0, 1)).astype(np.uint8)
    assert HaarDetector().detect(np.ascontiguousarray(pixels)) == []


class Searched:
    """In the place of a cascade: notes what it was given, and at one size finds a box, twice as cascades do."""

    def __init__(self, at: tuple[int, int]) -> None:
        self.at, self.sizes, self.options = at, [], {}

    def detectMultiScale(self, image: np.ndarray, **options: Any) -> list[list[int]]:
        self.sizes.append(image.shape)
        self.options, self.image = options, image
        return [[10, 20, 30, 40], [10, 20, 30, 40]] if image.shape == self.at else []


def look_with(detector: HaarDetector, at: tuple[int, int]) -> Searched:
    cascade: Any = Searched(at)
    detector._cascade = cascade
    return cascade


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((1200, 1600), [(120, 160), (240, 320), (480, 640)]),
        ((400, 300), [(160, 120), (320, 240), (400, 300)]),  # never enlarged
        ((100, 90), [(100, 90)]),
        ((160, 100), [(160, 100)]),
        ((1001, 333), [(160, 53), (320, 106), (640, 213)]),  # rounded, so not shrunk alike both ways
    ],
)
def test_a_search_begins_small_and_doubles_up_to_the_photo_s_own_size(
    shape: tuple[int, int], sizes: list[tuple[int, int]]
) -> None:
    detector = HaarDetector(DetectorConfig(scale_factor=1.2, min_neighbors=5, min_face=40))
    photo = np.zeros((*shape, 3), np.uint8)
    for stop in range(len(sizes)):
        cascade = look_with(detector, sizes[stop])
        (face,) = detector.detect(photo)
        across, down = shape[1] / sizes[stop][1], shape[0] / sizes[stop][0]
        assert face == Face(face.box)
        assert face.box == pytest.approx((10 * across, 20 * down, 40 * across, 60 * down))
        assert cascade.sizes == sizes[: stop + 1]
        assert cascade.options == {"scaleFactor": 1.2, "minNeighbors": 5, "minSize": (40, 40)}
    cascade = look_with(detector, (0, 0))
    assert detector.detect(photo) == [] and cascade.sizes == sizes


def test_faces_are_searched_in_the_luma_of_rgb() -> None:
    """A reddish face would be nearly invisible with red and blue swapped."""
    photo = np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    detector = HaarDetector()
    cascade = look_with(detector, (60, 50))
    detector.detect(photo)
    assert np.abs(cascade.image - photo @ np.array([0.299, 0.587, 0.114])).max() <= 1


def test_each_cascade_is_another_file(monkeypatch: pytest.MonkeyPatch) -> None:
    named = []

    class Loaded:
        def __init__(self, path: str) -> None:
            named.append(Path(path).name)

        def empty(self) -> bool:
            return False

    monkeypatch.setattr(cv2, "CascadeClassifier", Loaded)
    for name in ("alt2", "alt", "default"):
        HaarDetector(DetectorConfig(cascade=name))
    assert named == [f"haarcascade_frontalface_{name}.xml" for name in ("alt2", "alt", "default")]
    monkeypatch.setattr(Loaded, "empty", lambda self: True)
    with pytest.raises(ValueError, match="No Haar cascade at .*OpenCV 5 removed them"):
        HaarDetector()


def test_a_small_face_is_found_in_a_second_look() -> None:
    """At 160 pixels the face is 12 pixels large: only a finer search can see it."""
    face, points = drawn(0)
    photo = np.full((1200, 1600, 3), 128, np.uint8)
    photo[700:918, 1000:1178] = face
    assert HaarDetector(DetectorConfig(max_detect_side=160)).detect(photo) == []
    (face_found,) = HaarDetector(DetectorConfig(max_detect_side=1280)).detect(photo)
    box = face_found.box
    x, y = points.mean(axis=0) + np.array([1000, 700])
    assert box[0] < x < box[2]
    assert box[1] < y < box[3]
    assert 50 < box[2] - box[0] < 180


def test_box_is_in_pixels_of_the_image_given() -> None:
    image, _ = drawn(3)
    (small,) = (face.box for face in HaarDetector().detect(image))
    (large,) = (face.box for face in HaarDetector().detect(resize(image, 178 * 4, 218 * 4)))
    assert overlap(tuple(4 * edge for edge in small), large) > 0.8  # type: ignore[arg-type]
    assert all(type(edge) is float for edge in small)


@pytest.mark.parametrize("shape", [(16, 16), (16, 5000), (5000, 16), (33, 20), (1, 1)])
def test_extreme_shapes_have_no_face_and_no_crash(shape: tuple[int, int]) -> None:
    assert HaarDetector().detect(np.zeros((*shape, 3), np.uint8)) == []


def test_merge_averages_overlapping_boxes_and_keeps_others() -> None:
    a: Box = (0.0, 0.0, 10.0, 10.0)
    b: Box = (2.0, 2.0, 12.0, 12.0)
    far: Box = (50.0, 50.0, 60.0, 60.0)
    assert overlap(a, b) == pytest.approx(64 / 136)
    assert sorted(merge_boxes([a, far, b])) == [(1.0, 1.0, 11.0, 11.0), far]
    assert merge_boxes([a, a, a]) == [a]
    assert merge_boxes([]) == []
    assert len(merge_boxes([a, b], min_overlap=0.5)) == 2


def test_boxes_that_overlap_by_0_3_are_joined() -> None:
    assert len(merge_boxes([(0, 0, 10, 10), (0, 0, 10, 3)])) == 1


def test_merge_joins_a_chain_whatever_its_order() -> None:
    chain: list[Box] = [(0.0, 0.0, 10.0, 10.0), (4.0, 0.0, 14.0, 10.0), (8.0, 0.0, 18.0, 10.0)]
    assert overlap(chain[0], chain[2]) < 0.3 < overlap(chain[0], chain[1])
    for order in ((0, 1, 2), (0, 2, 1), (2, 0, 1)):
        assert merge_boxes([chain[i] for i in order]) == [(4.0, 0.0, 14.0, 10.0)]


def test_with_every_size_searched_small_faces_beside_large_ones_are_found() -> None:
    face, _ = drawn(0)
    photo = np.full((900, 1200, 3), 128, np.uint8)
    photo[50:486, 50:406] = resize(face, 356, 436)
    photo[600:709, 900:989] = resize(face, 89, 109)
    detector = HaarDetector()
    assert len(detector.detect(photo)) == 1
    found = sorted(face.box[0] for face in detector.detect(photo, every=True))
    assert len(found) == 2 and 50 < found[0] < 200 and 900 < found[1] < 950
