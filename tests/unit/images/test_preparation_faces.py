"""Faces put upright by their five points, and all faces of a photo, each sharp or refused."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from retrieval.images.alignment import align
from retrieval.images.boxes import overlap
from retrieval.images.detectors.face import Face, Points
from retrieval.images.detectors.yunet import YunetDetector
from retrieval.images.pixels import BadImage, decode, encode_jpeg, resize
from retrieval.images.preparation import prepare, prepare_all
from retrieval.images.quality import measure
from retrieval.images.settings import Crop, DetectorConfig, PrepareConfig
from tests.support.photos import portrait, yunet
from tests.support.prepared import DETECTOR, error, pixels_of, rough

pytestmark = pytest.mark.usefixtures("one_thread")

ALIGNED = PrepareConfig(crop="aligned", detector="yunet", size=112, margin=0.0, quality=98)
YUNET = YunetDetector(ALIGNED, yunet())


def test_an_aligned_face_is_what_its_points_make_of_the_photo() -> None:
    photo = decode(encode_jpeg(portrait(1), 98))[0]
    (face,) = YUNET.detect(photo)
    assert face.points is not None
    done = prepare(encode_jpeg(portrait(1), 98), ALIGNED, YUNET)
    wanted, box = align(photo, face.points, 112)
    assert error(done, wanted) < 3 and done.box == pytest.approx(box) and done.points == face.points
    assert done.quality == measure(face, wanted)
    wide = prepare(encode_jpeg(portrait(1), 98), dataclasses.replace(ALIGNED, margin=0.25, size=168), YUNET)
    assert error(wide, align(photo, face.points, 168, 0.25)[0]) < 3


@pytest.mark.parametrize("scale", [4, 8])
def test_an_aligned_face_of_a_large_photo_is_that_of_a_small_one(scale: int, reductions: list[int]) -> None:
    large = prepare(encode_jpeg(resize(portrait(2), 178 * scale, 218 * scale), 98), ALIGNED, YUNET)
    assert reductions == [scale // 2]
    small = prepare(encode_jpeg(portrait(2), 98), ALIGNED, YUNET)
    assert overlap(large.box, tuple(scale * edge for edge in small.box)) > 0.8  # type: ignore[arg-type]
    assert error(large, pixels_of(small)) < 20
    assert large.quality is not None and small.quality is not None
    assert large.quality.size == pytest.approx(scale * small.quality.size, rel=0.1)


def crowd() -> np.ndarray:
    """2,400 x 1,600: a large face, one in the middle, and a small one of 100 pixels."""
    photo = np.full((1600, 2400, 3), 120, np.uint8)
    photo[100:972, 60:772] = portrait(1, (712, 872))
    photo[560:1040, 1000:1392] = portrait(2, (392, 480))
    photo[1400:1522, 2200:2300] = portrait(3, (100, 122))
    return photo


@pytest.mark.parametrize("crop", ["face", "aligned"])
def test_all_faces_are_cut_as_sharp_as_the_photo_has_them(crop: Crop, reductions: list[int]) -> None:
    config = dataclasses.replace(ALIGNED, crop=crop, faces="all")
    photo, data = crowd(), encode_jpeg(crowd(), 98)
    faces = prepare_all(data, config, YUNET)
    assert (sorted(faces.kept), faces.refused, faces.best) == ([0, 1, 2], {}, 1)
    assert len(reductions) <= 2
    for face, (x1, x2) in zip(faces.kept.values(), ((60, 772), (1000, 1392), (2200, 2300)), strict=True):
        assert face.points is not None and all(x1 < x < x2 for x, _ in face.points)
        wanted = (
            align(photo, face.points, 112)[0]
            if crop == "aligned"
            else resize(np.ascontiguousarray(crop_of(photo, face.box)), 112, 112)
        )
        assert error(face, wanted) < 5


def crop_of(photo: np.ndarray, box: tuple[float, ...]) -> np.ndarray:
    x1, y1, x2, y2 = (round(edge) for edge in box)
    return photo[y1:y2, x1:x2]


def test_faces_that_are_too_poor_are_counted_and_the_best_of_the_others_is_taken() -> None:
    data = encode_jpeg(crowd(), 95)
    config = dataclasses.replace(ALIGNED, faces="all", min_face_size=250)
    faces = prepare_all(data, config, YUNET)
    assert (sorted(faces.kept), sorted(faces.refused), faces.best) == ([0], [1, 2], 0)
    assert {bad.reason for bad in faces.refused.values()} == {"face-too-small"}
    assert prepare(data, config, YUNET).box == pytest.approx(faces.kept[0].box, abs=30)
    none = dataclasses.replace(config, min_face_size=2000)
    assert prepare_all(data, none, YUNET).best is None
    with pytest.raises(BadImage, match="face-too-small: 2.. pixels, the limit is 2000"):  # the best one's reason
        prepare(data, none, YUNET)
    with pytest.raises(BadImage, match="no-face"):
        prepare_all(encode_jpeg(np.full((300, 300, 3), 90, np.uint8)), config, YUNET)
    with pytest.raises(BadImage, match="empty"):
        prepare_all(b"", config, YUNET)


def test_alignment_without_points_is_refused() -> None:
    with pytest.raises(ValueError, match="five points: yunet"):
        prepare(encode_jpeg(portrait(1)), ALIGNED, DETECTOR)


@pytest.mark.parametrize("points", [((9.0, 9.0),) * 5, ((math.nan, 9.0), *((float(n), 9.0) for n in range(4)))])
def test_a_face_whose_points_are_in_no_place_is_none(points: Points) -> None:
    """A photo that a network reads oddly is a reason of its own, and does not end the part it is in."""

    class Odd:
        config: DetectorConfig = PrepareConfig(detector="yunet")

        def detect(self, image: np.ndarray, *, every: bool = False) -> list[Face]:
            return [Face((2.0, 2.0, 40.0, 40.0), 0.9, points)]

    config = PrepareConfig(detector="yunet", crop="aligned", margin=0.0)
    for work in (prepare, prepare_all):
        with pytest.raises(BadImage, match="no face found"):
            work(encode_jpeg(rough(64, 64)), config, Odd())
