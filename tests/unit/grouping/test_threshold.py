"""Which threshold is used: as set, else calibrated, else published and more, else a guess that says so."""

from __future__ import annotations

import pytest

from retrieval.artifacts.calibration import Calibration, KnownThreshold, Rate
from retrieval.grouping.settings import GroupingConfig
from retrieval.grouping.threshold import STRICTER, UNKNOWN, choose

PUBLISHED = KnownThreshold(threshold=0.363, source="opencv.org")


def calibrated(**promised: float | None) -> Calibration:
    rates = tuple(Rate(far=float(name.removeprefix("far")), threshold=value) for name, value in promised.items())
    return Calibration(model="m", rates=rates)


def test_what_is_set_is_used() -> None:
    found = choose(GroupingConfig(threshold=0.3), calibrated(**{"far1e-4": 0.42}), PUBLISHED)
    assert (found.value, found.source) == (0.3, "as set")


def test_a_calibration_comes_before_the_publisher() -> None:
    found = choose(GroupingConfig(), calibrated(**{"far1e-3": 0.36, "far1e-4": 0.42}), PUBLISHED)
    assert (found.value, found.source) == (0.42, "calibration at a false-accept rate of 0.0001")


def test_a_rate_that_is_not_promised_gives_place_to_the_next() -> None:
    found = choose(GroupingConfig(), calibrated(**{"far1e-3": 0.36, "far1e-4": None}), PUBLISHED)
    assert found.value == pytest.approx(0.36 + STRICTER)
    assert found.source == "calibration at a false-accept rate of 0.001, and 0.04 more"


@pytest.mark.parametrize("calibration", [None, calibrated(), calibrated(**{"far1e-3": None, "far1e-4": None})])
def test_without_a_promise_the_publisher_is_asked(calibration: Calibration | None) -> None:
    assert choose(GroupingConfig(), calibration, PUBLISHED).value == 0.403


def test_of_an_unknown_model_nothing_is_known_and_it_is_said() -> None:
    found = choose(GroupingConfig(), None, None)
    assert found.value == UNKNOWN
    assert "a guess" in found.source


def test_no_threshold_is_above_one() -> None:
    assert choose(GroupingConfig(), None, KnownThreshold(threshold=0.99)).value == 1.0
