"""Five points come to lie where networks expect them, as OpenCV's own alignment puts them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from retrieval.images.alignment import TEMPLATE, align, scale_of, similarity, template_at
from retrieval.images.detectors.face import Points
from retrieval.images.detectors.yunet import YunetDetector
from retrieval.images.pixels import resize
from retrieval.images.settings import DetectorConfig
from tests.support.photos import portrait, yunet


def moved(points: np.ndarray, scale: float, degrees: float, shift: tuple[float, float]) -> np.ndarray:
    turn = np.deg2rad(degrees)
    return scale * points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + shift


def as_points(array: np.ndarray) -> Points:
    return tuple((float(x), float(y)) for x, y in array)


@pytest.mark.parametrize(("scale", "degrees"), [(1.0, 0.0), (3.0, 30.0), (0.2, -100.0), (1.5, 180.0)])
def test_a_turn_a_scale_and_a_shift_are_undone_exactly(scale: float, degrees: float) -> None:
    matrix = similarity(moved(TEMPLATE, scale, degrees, (50.0, -20.0)), TEMPLATE)
    back = moved(TEMPLATE, scale, degrees, (50.0, -20.0)) @ matrix[:, :2].T + matrix[:, 2]
    assert np.allclose(back, TEMPLATE)
    assert scale_of(as_points(moved(TEMPLATE, scale, degrees, (5, 5))), 112, 0.0) == pytest.approx(1 / scale)


def test_of_points_that_do_not_fit_the_sum_of_squares_is_least() -> None:
    """Against plain least squares in the four numbers of a similarity."""
    points = TEMPLATE + np.random.default_rng(0).normal(0, 5, (5, 2))
    rows = np.concatenate([[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in points])
    (a, b, tx, ty), *_ = np.linalg.lstsq(rows, TEMPLATE.reshape(-1), rcond=None)
    assert np.allclose(similarity(points, TEMPLATE), [[a, -b, tx], [b, a, ty]])


def test_mirrored_points_are_turned_and_never_mirrored() -> None:
    assert np.linalg.det(similarity(TEMPLATE * [-1, 1], TEMPLATE)[:, :2]) > 0


@pytest.mark.parametrize("points", [np.ones((5, 2)), np.full((5, 2), np.nan)])
def test_points_that_are_all_one_are_refused(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="cannot be aligned"):
        similarity(points, TEMPLATE)


def test_the_template_grows_with_the_square_and_shrinks_with_the_margin() -> None:
    assert np.allclose(template_at(112, 0.0), TEMPLATE)
    assert np.allclose(template_at(224, 0.0), 2 * TEMPLATE + 0.5)  # the middle of a pixel, not its corner
    assert np.allclose(template_at(224, 0.5), TEMPLATE + 56)
    assert np.allclose(template_at(56, -0.25), TEMPLATE - 28)


def test_opencv_aligns_alike() -> None:
    """`alignCrop` needs a recogniser, whose own network it does not run for this."""
    detector, apart = YunetDetector(DetectorConfig(), yunet()), []
    for number in range(6):
        photo = resize(portrait(number), 300, 367)
        (face,) = detector.detect(photo)
        ours, _ = align(photo, face.points or (), 112)
        theirs = cv2.warpAffine(photo, opencv_matrix(np.array(face.points)), (112, 112), flags=cv2.INTER_LINEAR)
        apart.append(np.abs(ours.astype(int) - theirs).mean())
    assert max(apart) < 1


def opencv_matrix(points: np.ndarray) -> np.ndarray:
    """What OpenCV's face_recognize.cpp works out: Umeyama by the singular values of the covariance."""
    source, target = points - points.mean(0), TEMPLATE - TEMPLATE.mean(0)
    u, s, v = np.linalg.svd(target.T @ source / 5)
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    turn = u @ np.diag(sign) @ v
    scale = (s * sign).sum() / (source**2).sum() * 5
    return np.hstack([scale * turn, (TEMPLATE.mean(0) - scale * turn @ points.mean(0))[:, None]])


@pytest.mark.realdata
def test_the_aligned_square_is_that_of_opencv_on_real_photos(real_faces: object) -> None:
    from pathlib import Path

    from retrieval.images.pixels import decode

    assert isinstance(real_faces, Path)
    weights = real_faces.parents[1] / "weights" / "face_recognition_sface_2021dec_int8bq.onnx"
    recogniser, detector = cv2.FaceRecognizerSF.create(str(weights), ""), YunetDetector(DetectorConfig(), yunet())
    for path in sorted(real_faces.glob("*/*.jpg"))[::400]:
        photo = decode(path.read_bytes())[0]
        face = detector.detect(photo)[0]
        x1, y1, x2, y2 = face.box
        row = np.array([x1, y1, x2 - x1, y2 - y1, *np.ravel(face.points or ()), face.confidence], np.float32)
        theirs = recogniser.alignCrop(photo, row)
        ours, _ = align(photo, face.points or (), 112)
        assert np.abs(ours.astype(int) - theirs).mean() < 1.5


def spots(points: np.ndarray, size: int) -> np.ndarray:
    """A dark image with a round bright spot at each point."""
    photo = np.zeros((size, size, 3), np.uint8)
    for x, y in points:
        cv2.circle(photo, (round(x * 16), round(y * 16)), 16 * size // 60, (255, 255, 255), -1, cv2.LINE_AA, 4)
    return photo


@pytest.mark.parametrize(("scale", "degrees"), [(1.0, 0.0), (1.0, 25.0), (2.5, -40.0), (8.0, 10.0)])
@pytest.mark.parametrize(("size", "margin"), [(112, 0.0), (64, 0.0), (160, 0.25)])
def test_what_is_cut_has_the_points_at_the_template(scale: float, degrees: float, size: int, margin: float) -> None:
    points = moved(TEMPLATE, scale, degrees, (0, 0))
    points += 700 - points.mean(0)
    cut, box = align(spots(points, 1400), as_points(points), size, margin)
    assert cut.shape == (size, size, 3) and cut.dtype == np.uint8
    (x1, y1, x2, y2), side = box, 112 * scale * (1 + 2 * margin)
    turn = np.deg2rad(abs(degrees))
    assert x2 - x1 == pytest.approx(side * (np.cos(turn) + np.sin(turn)))
    assert y2 - y1 == pytest.approx(x2 - x1)
    if scale >= 8 and size > 64:  # spots that are small enough to tell their middles apart
        for x, y in template_at(size, margin):
            near = cut[max(0, round(y) - 3) : round(y) + 4, max(0, round(x) - 3) : round(x) + 4, 0]
            assert near.mean() > 60


def test_a_face_that_is_shrunk_much_is_not_sampled_but_averaged() -> None:
    """Stripes of one pixel become grey."""
    photo = np.zeros((1120, 1120, 3), np.uint8)
    photo[:, ::2] = 255
    cut, _ = align(photo, as_points(TEMPLATE * 10), 112)
    assert abs(float(cut[20:-20, 20:-20].mean()) - 127.5) < 3 and cut[20:-20, 20:-20].std() < 12


def test_what_lies_outside_the_photo_is_black() -> None:
    photo = np.full((112, 112, 3), 200, np.uint8)
    cut, box = align(photo, as_points(TEMPLATE - (56, 0)), 112)
    assert (cut[:, :54] == 0).all() and (cut[2:-2, 58:] == 200).all()
    assert box == pytest.approx((-56, 0, 56, 112))
    assert not align(photo, as_points(TEMPLATE * 10 + 5000), 112)[0].any()
