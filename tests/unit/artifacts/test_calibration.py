"""What a score means: curves that rise, answers that keep to their intervals, and a file that reads back the same."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from retrieval.artifacts.calibration import (
    CALIBRATION,
    Bin,
    Calibration,
    Curve,
    KnownThreshold,
    Rate,
    judge,
    read_calibration,
    read_calibrations,
    write_calibrations,
)
from retrieval.artifacts.folder import Folder

CURVE = Curve(intercept=-29.0, low=0.5, high=27.0, wrong=0.0016)
KNOWN = Rate(
    far=1e-3,
    threshold=0.36,
    threshold_interval=(0.35, 0.37),
    far_interval=(0.0009, 0.0011),
    true_accept=0.98,
    true_accept_interval=(0.97, 0.99),
    false_accepts=350.0,
)
UNKNOWN = Rate(far=1e-4, why="too few people")
FITTED = Calibration(
    model="a" * 64,
    people=600,
    people_with_pairs=590,
    photos=2000,
    same_pairs=4000,
    different_pairs=10**6,
    curve=CURVE,
    rates=(KNOWN, UNKNOWN),
    reliability=(Bin(low=0.0, high=0.1, told=0.02, found=0.03, share=0.5),),
)


def test_the_curve_is_beta_calibration_as_published() -> None:
    whole = dataclasses.replace(CURVE, wrong=1e-12)
    for score in (0.2, 0.3, 0.5):
        u = (1 + score) / 2
        assert whole.evidence(score) == pytest.approx(math.log(u**0.5 / (1 - u) ** 27.0) - 29.0, rel=1e-3)


def test_evidence_ends_at_what_the_people_can_show() -> None:
    most = math.log((1 - 0.0016) / 0.0016)
    assert CURVE.evidence(-0.5) == pytest.approx(-most, abs=1e-3) and CURVE.evidence(0.9) == pytest.approx(
        most, abs=1e-3
    )


def test_probability_rises_with_the_score_and_stays_in_bounds_where_scores_end() -> None:
    told = [FITTED.probability(score) for score in (-1.0, -0.5, 0.0, 0.2, 0.4, 0.6, 1.0)]
    assert all(value is not None and 0 <= value <= 1 for value in told)
    assert told == sorted(told, key=lambda value: value or 0)


def test_probability_follows_bayes() -> None:
    odds = math.exp(CURVE.evidence(0.3)) * 0.01 / 0.99
    assert FITTED.probability(0.3, prior=0.01) == pytest.approx(odds / (1 + odds))
    assert FITTED.probability(0.3) == pytest.approx(FITTED.probability(0.3, prior=0.5))
    with pytest.raises(ValueError, match="prior is 1"):
        FITTED.probability(0.3, prior=1.0)


@pytest.mark.parametrize(
    ("score", "answer"),
    [
        (0.37, "same"),
        (0.9, "same"),
        (0.369, "cannot tell"),
        (0.35, "cannot tell"),
        (0.34, "cannot tell"),
        (0.1, "different"),
    ],
)
def test_decisions_keep_to_the_interval_and_to_what_is_probable(score: float, answer: str) -> None:
    assert FITTED.decide(score, 1e-3) == answer
    judged = judge(score, 1e-3, FITTED, KnownThreshold(threshold=0.2))
    assert (judged.answer, judged.threshold, judged.probability) == (answer, 0.36, FITTED.probability(score))
    # The end of the interval that decides, and the threshold that the answer shows beside it.
    ends = "0.370" in judged.why and "the threshold, 0.360, lies between 0.350 and 0.370" in judged.why
    assert ends == (answer != "different")


def test_a_rate_that_is_not_promised_decides_nothing() -> None:
    assert FITTED.threshold(1e-4) is None
    assert FITTED.decide(0.9, 1e-4) == "cannot tell"
    assert judge(0.9, 1e-4, FITTED).why == "too few people"


def test_a_published_threshold_stands_in_until_there_is_better() -> None:
    known = KnownThreshold(threshold=0.363, source="opencv")
    for found in (None, FITTED):
        assert judge(0.363, 1e-4, found, known).answer == "same"
        judged = judge(0.362, 1e-4, found, known)
        assert judged.answer == "different" and "opencv" in judged.why and "not known" in judged.why
    assert judge(0.4, 1e-4, None).answer == "cannot tell"
    assert "never calibrated" in judge(0.4, 1e-4, None).why


def test_a_rate_nobody_looked_at_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"0\.5.*Choose one of: 0\.001, 0\.0001"):
        FITTED.rate(0.5)


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="score is nan"):
        judge(math.nan, 1e-3, FITTED)


@pytest.mark.parametrize("wrong", [{"low": -0.1}, {"high": math.nan}, {"intercept": math.inf}, {"wrong": 0.0}])
def test_a_curve_that_falls_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no rising curve"):
        dataclasses.replace(CURVE, **wrong)


def test_calibrations_read_back_as_they_were_written(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    empty = Calibration(model="b" * 64, why="no labels")
    write_calibrations(folder, {"before": empty, "after": FITTED})
    assert list(read_calibrations(folder).items()) == [("before", empty), ("after", FITTED)]
    assert read_calibration(folder, "a" * 64) == FITTED
    assert read_calibration(folder, "c" * 64) is None


def test_a_report_without_the_file_has_none_and_a_damaged_file_is_refused(tmp_path: Path) -> None:
    assert read_calibrations(Folder.of(tmp_path)) == {}
    (tmp_path / CALIBRATION).write_text('{"systems": {"a": {"model": 1}}, "order": ["a"]}')
    with pytest.raises(ValueError, match=r"calibration\.json is damaged"):
        read_calibrations(Folder.of(tmp_path))
