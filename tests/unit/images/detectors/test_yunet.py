"""YuNet finds faces at their places, large and small; what is no such network is refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.data.demo.people import sample_person, sample_shot
from retrieval.data.demo.portrait import background, landmarks
from retrieval.images.boxes import overlap
from retrieval.images.detectors.face import Face
from retrieval.images.detectors.yunet import YunetDetector
from retrieval.images.pixels import decode, resize
from retrieval.images.settings import DetectorConfig
from tests.support.photos import portrait, yunet

pytestmark = pytest.mark.usefixtures("one_thread")


def detector(**settings: Any) -> YunetDetector:
    return YunetDetector(DetectorConfig(**settings), yunet())


def test_the_points_of_drawn_faces_are_found_in_their_order() -> None:
    found, part = detector(), []
    for identity in range(20):
        person = sample_person(0, identity)
        true = np.array(landmarks(person, sample_shot(0, identity, 0, person), (178, 218)))
        (face,) = found.detect(portrait(identity))
        points = np.array(face.points)
        assert points.shape == (5, 2) and face.confidence is not None and 0.8 < face.confidence <= 1
        assert all(face.box[0] < x < face.box[2] and face.box[1] < y < face.box[3] for x, y in points)
        part.append(np.linalg.norm(points - true, axis=1) / (true[1, 0] - true[0, 0]))
    assert np.median(part) < 0.15, "of the distance of the eyes"


def test_no_face_in_a_background() -> None:
    picture = background(np.random.default_rng(0), (178, 218))
    pixels = (255 * np.clip(picture.transpose(1, 2, 0), 0, 1)).astype(np.uint8)
    assert detector().detect(np.ascontiguousarray(pixels), every=True) == []


def test_what_is_less_sure_than_asked_is_no_face() -> None:
    (face,) = detector().detect(portrait(0))
    assert face.confidence is not None
    assert detector(min_confidence=min(1.0, face.confidence + 0.01), max_detect_side=160).detect(portrait(0)) == []


def test_a_face_is_found_where_it_is_whatever_the_photo_s_size() -> None:
    (small,) = detector().detect(portrait(3))
    for factor in (3, 9):
        (large,) = detector().detect(resize(portrait(3), 178 * factor, 218 * factor))
        assert overlap(small.scaled(factor).box, large.box) > 0.75
        apart = np.abs(np.array(small.scaled(factor).points) - np.array(large.points))
        assert apart.max() < 0.15 * (large.box[2] - large.box[0])


def scene() -> np.ndarray:
    """A large photo with a large face and a small one, 90 pixels of 1,600."""
    photo = np.full((1200, 1600, 3), 128, np.uint8)
    photo[50:704, 50:584] = resize(portrait(1), 534, 654)
    photo[1000:1109, 1400:1489] = resize(portrait(2), 89, 109)
    return photo


def test_small_faces_beside_large_ones_are_found_once_where_every_size_is_searched() -> None:
    (face,) = detector().detect(scene())
    assert 50 < face.box[0] < 584
    found = sorted(face.box[0] for face in detector().detect(scene(), every=True))
    assert len(found) == 2 and 50 < found[0] < 584 and 1400 < found[1] < 1489
    assert len(detector(all_side=160).detect(scene(), every=True)) == 1


@pytest.mark.parametrize("shape", [(16, 16), (16, 5000), (5000, 16), (33, 20), (1, 1)])
def test_extreme_shapes_have_no_face_and_no_crash(shape: tuple[int, int]) -> None:
    assert detector().detect(np.zeros((*shape, 3), np.uint8), every=True) == []


@pytest.mark.parametrize("network", [b"", b"not a network", yunet()[:5000], yunet()[:-100]])
def test_what_is_no_such_network_is_refused_in_words(network: bytes) -> None:
    with pytest.raises(ValueError, match=f"The {len(network)} bytes given as YuNet are no network.*ray_jobs.weights"):
        YunetDetector(DetectorConfig(), network)


@pytest.mark.realdata
def test_a_face_is_found_in_every_real_photo(real_faces: Path) -> None:
    found = detector()
    photos = sorted(real_faces.glob("*/*.jpg"))[::80]
    assert [path.name for path in photos if not found.detect(decode(path.read_bytes())[0])] == []


def test_a_face_seen_small_is_as_sure_and_as_exact_as_seen_large() -> None:
    """40 pixels of 1,600: the search alone is less sure of it, the second look is not."""
    photo = np.full((1200, 1600, 3), 128, np.uint8)
    photo[900:973, 1200:1260] = resize(portrait(2), 60, 73)
    found = detector(min_confidence=0.3)
    (face,) = found.detect(photo, every=True)
    (large,) = found.detect(portrait(2))
    assert face.confidence == pytest.approx(large.confidence, abs=0.06) and (face.confidence or 0) > 0.85
    there = np.array(large.scaled(60 / 178).moved(1200, 900).points)
    assert np.abs(np.array(face.points) - there).max() < 3
    candidates = [one for side in (640, 1280) for one in found._search(photo, side)]
    assert max((one.confidence or 0.0) for one in candidates) < (face.confidence or 0)


def test_a_candidate_at_the_border_or_without_a_side_is_no_crash() -> None:
    found, photo = detector(), portrait(1)
    assert found._look_again(photo, Face((-400.0, -400.0, -380.0, -370.0), 0.9), 1.0) is None
    assert found._look_again(photo, Face((10.0, 10.0, 10.0, 10.0), 0.9), 1.0) is None
