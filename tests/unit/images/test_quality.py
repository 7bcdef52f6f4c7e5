"""Small, blurred and turned faces are told from good ones, and refused only where the settings say so."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from retrieval.images.alignment import TEMPLATE
from retrieval.images.detectors.face import Face, Points
from retrieval.images.pixels import as_pixels, resize
from retrieval.images.quality import Quality, measure, refusal, sharpness_of, turn_of
from retrieval.images.settings import PrepareConfig
from tests.support.photos import portrait


def points(nose: tuple[float, float]) -> Points:
    return ((0.0, 0.0), (10.0, 0.0), nose, (2.0, 20.0), (8.0, 20.0))


@pytest.mark.parametrize(
    ("nose", "turn"), [((5, 10), 0.0), ((10, 10), 0.5), ((0, 10), -0.5), ((17, 3), 1.2), ((5, 90), 0.0)]
)
def test_a_face_is_turned_as_far_as_its_nose_is_from_the_middle(nose: tuple[float, float], turn: float) -> None:
    assert turn_of(points(nose)) == pytest.approx(turn)
    upright = np.array(points(nose))
    leaning: Points = tuple((float(-y), float(x)) for x, y in upright)  # by 90 degrees
    assert turn_of(leaning) == pytest.approx(turn)
    larger: Points = tuple((float(3 * x + 7), float(3 * y - 2)) for x, y in upright)
    assert turn_of(larger) == pytest.approx(turn)


def test_the_template_looks_straight_and_eyes_in_one_place_say_nothing() -> None:
    assert abs(turn_of(tuple((float(x), float(y)) for x, y in TEMPLATE))) < 0.02
    assert turn_of(((1, 1), (1, 1), (5, 5), (0, 0), (0, 0))) == 0


def test_blur_lowers_sharpness_and_contrast_does_not() -> None:
    sharp = portrait(0, (200, 200))
    values = [sharpness_of(as_pixels(cv2.GaussianBlur(sharp, (0, 0), sigma))) for sigma in (1, 2, 4, 8)]
    assert sharpness_of(sharp) > values[0] > values[1] > values[2] > values[3] > 0
    pale = (100 + sharp * 0.4).astype(np.uint8)
    assert sharpness_of(pale) == pytest.approx(sharpness_of(sharp), rel=0.1)
    assert sharpness_of(np.full((50, 50, 3), 7, np.uint8)) == 0
    tiny = resize(resize(sharp, 16, 16), 200, 200)
    assert sharpness_of(tiny) < 0.5 * sharpness_of(sharp)


def test_what_is_measured_is_of_the_source_photo() -> None:
    cut = portrait(0, (112, 112))
    face = Face((10.0, 20.0, 40.0, 70.0), 0.93, points((10, 10)))
    assert measure(face, cut) == Quality(0.93, 30.0, sharpness_of(cut), 0.5)
    assert measure(Face(face.box), cut) == Quality(None, 30.0, sharpness_of(cut), None)


def test_a_face_is_refused_below_a_limit_and_not_at_it() -> None:
    good = Quality(0.9, 40.0, 0.2, -0.6)
    assert refusal(good, PrepareConfig()) is None
    assert refusal(good, PrepareConfig(min_face_size=40, min_sharpness=0.2, max_turn=0.6)) is None
    for settings, reason, says in (
        ({"min_face_size": 41}, "face-too-small", "40 pixels, the limit is 41"),
        ({"min_sharpness": 0.21}, "face-blurred", "sharpness 0.200, the limit is 0.21"),
        ({"max_turn": 0.59}, "face-turned", "turned by -0.60, the limit is 0.59"),
    ):
        bad = refusal(good, PrepareConfig(**settings))  # type: ignore[arg-type]
        assert bad is not None and (bad.reason, bad.detail) == (reason, says)
    assert refusal(Quality(None, 40.0, 0.2, None), PrepareConfig(max_turn=0.0)) is None
    assert refusal(Quality(0.9, 40.0, 0.2, float("nan")), PrepareConfig()) is not None
