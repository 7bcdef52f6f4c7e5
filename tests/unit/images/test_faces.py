"""The best face is chosen and cut exactly; the detector is the one that the settings and the files at hand allow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from retrieval.images.detectors.face import Face
from retrieval.images.detectors.haar import HaarDetector
from retrieval.images.detectors.yunet import YunetDetector
from retrieval.images.faces import best_first, crop, expand_box, largest_first, make_detector
from retrieval.images.pixels import resize
from retrieval.images.settings import Box, PrepareConfig
from tests.support.photos import yunet


def first(boxes: Sequence[Box], width: int, height: int) -> Box:
    return best_first([Face(box) for box in boxes], width, height)[0].box


def test_the_detector_is_what_the_settings_ask_for() -> None:
    for config, network, kind in (
        (PrepareConfig(), None, HaarDetector),
        (PrepareConfig(), yunet(), YunetDetector),
        (PrepareConfig(detector="haar"), yunet(), HaarDetector),
        (PrepareConfig(detector="yunet", min_confidence=0.7), yunet(), YunetDetector),
        (PrepareConfig(crop="aligned"), yunet(), YunetDetector),
    ):
        made = make_detector(config, network)
        assert isinstance(made, kind) and made.config.min_confidence == config.min_confidence
    for name in ("none", "fit", "box"):
        assert make_detector(PrepareConfig(crop=name), yunet()) is None
    for config in (PrepareConfig(detector="yunet"), PrepareConfig(crop="aligned")):
        with pytest.raises(ValueError, match="needs the file of YuNet, and it was not found"):
            make_detector(config)


def test_the_largest_face_is_number_0_and_ties_go_to_the_top_left() -> None:
    boxes: list[Box] = [(30, 0, 40, 10), (0, 0, 10, 10), (50, 50, 80, 90), (0, 20, 10, 30)]
    assert [face.box for face in largest_first([Face(box) for box in boxes])] == [
        boxes[2],
        boxes[1],
        boxes[0],
        boxes[3],
    ]


def test_best_face_weighs_size_and_centrality() -> None:
    centre: Box = (40.0, 40.0, 60.0, 60.0)
    corner: Box = (0.0, 0.0, 22.0, 22.0)
    huge_beside: Box = (0.0, 10.0, 60.0, 70.0)
    assert first([corner, centre], 100, 100) == centre  # hardly smaller, and in the middle
    assert first([huge_beside, centre], 100, 100) == huge_beside  # nine times the area
    assert first([(70.0, 40.0, 90.0, 60.0), (10.0, 40.0, 30.0, 60.0)], 100, 100)[0] == 10.0  # a tie
    assert best_first([], 100, 100) == []


def test_a_face_s_weight_falls_with_the_square_of_its_distance() -> None:
    """Half-way to a corner a face must be more than 4 times as large as one in the middle."""
    middle: Box = (190.0, 140.0, 210.0, 160.0)

    def aside(side: float) -> Box:
        return (300 - side / 2, 225 - side / 2, 300 + side / 2, 225 + side / 2)  # half-way to the corner of 400 x 300

    assert first([middle, aside(39)], 400, 300) == middle
    assert first([middle, aside(41)], 400, 300) == aside(41)
    left, right = (10.0, 140.0, 30.0, 160.0), (370.0, 140.0, 390.0, 160.0)
    above, below = (190.0, 10.0, 210.0, 30.0), (190.0, 270.0, 210.0, 290.0)
    assert first([right, left], 400, 300) == left and first([below, above], 400, 300) == above


def test_expand_makes_a_square_around_the_centre() -> None:
    assert expand_box((10, 20, 30, 60), 0.0) == (0, 20, 40, 60)
    assert expand_box((0, 0, 100, 100), 0.15) == pytest.approx((-15, -15, 115, 115))
    assert expand_box((0, 0, 100, 100), -0.1) == pytest.approx((10, 10, 90, 90))


def test_crop_inside_is_a_slice() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    assert np.array_equal(crop(image, (10.2, 5.4, 30.2, 25.4), 20), image[5:25, 10:30])


def test_crop_outside_repeats_the_border() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    padded = np.pad(image, ((10, 5), (3, 12), (0, 0)), mode="edge")
    assert np.array_equal(crop(image, (-3, -10, 32, 25), 35), padded)


def test_a_box_s_edges_are_rounded_and_its_last_pixel_is_not_cut() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    assert np.array_equal(crop(image, (9.5, 4.5, 29.4, 24.4), 19), resize(image[5:24, 10:29], 19, 19))
    assert np.array_equal(crop(image, (59.0, 49.0, 60.0, 50.0), 1), image[49:, 59:])
    half = crop(image, (-10, -10, 1, 1), 11)
    assert (half == image[0, 0]).all()  # one pixel of the image, and its border repeated


@pytest.mark.parametrize(
    "box",
    [
        *((100, 0, 120, 20), (0, -30, 20, -10), (5, 5, 5, 9), (9, 9, 5, 5)),
        *((20, 0, 40, 20), (0, 20, 20, 40), (-20, 0, 0, 20), (0, -20, 20, 0)),  # that only touch it
    ],
)
def test_crop_refuses_a_box_off_the_image(box: Box) -> None:
    with pytest.raises(ValueError, match="does not meet"):
        crop(np.zeros((20, 20, 3), np.uint8), box, 10)
