"""The best face is chosen and cut exactly; the detector is the one that the settings and the files at hand allow."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from retrieval.images.detectors.face import Face
from retrieval.images.detectors.haar import HaarDetector
from retrieval.images.detectors.yunet import YunetDetector
from retrieval.images.faces import best_first, largest_first, make_detector
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
