"""Curves rise, come back as they were drawn from, and are no surer than the people behind them allow."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.artifacts.calibration import Calibration, Curve
from retrieval.evaluation.calibration.curve import fit_curve, probabilities, reliability
from retrieval.evaluation.calibration.pairs import Pairs, different_pairs, same_pairs


def drawn(scores: np.ndarray, people: int) -> Pairs:
    order = np.argsort(-scores)
    whose = (order % people).astype(np.int32)
    share = np.full(len(scores), 1 / len(scores))
    kept = {"scores": scores[order].astype(np.float32), "first": whose, "second": whose, "draw": whose}
    return Pairs(**kept, weights=share, people=people, draws=people)


def of_curve(curve: Curve, num: int, seed: int) -> tuple[Pairs, Pairs]:
    """Pairs, half of them the same at every score that the curve says so of."""
    random = np.random.default_rng(seed)
    scores = random.uniform(-0.2, 0.9, size=num)
    same = random.random(num) < probabilities(curve, scores)
    return drawn(scores[same], 2000), drawn(scores[~same], 2000)


@pytest.mark.parametrize("powers", [(-8.0, 2.0, 9.0), (-10.0, 0.0, 12.0), (4.0, 12.0, 0.0)])
def test_a_curve_comes_back_from_pairs_drawn_of_it(powers: tuple[float, float, float]) -> None:
    intercept, low, high = powers
    real = Curve(intercept=intercept, low=low, high=high, wrong=1 / 2002)
    same, different = of_curve(real, 200_000, seed=1)
    found = fit_curve(same, different)
    scores = np.linspace(-0.2, 0.9, 50)
    shift = np.log(len(different) / len(same))  # a fit takes both kinds for equally many
    odds = probabilities(real, scores) / (1 - probabilities(real, scores)) * np.exp(shift)
    assert np.abs(probabilities(found, scores) - odds / (1 + odds)).max() < 0.02
    assert min(found.low, found.high) >= 0


@pytest.mark.parametrize("seed", range(10))
def test_probabilities_never_fall_whatever_the_pairs(seed: int) -> None:
    random = np.random.default_rng(seed)
    same = drawn(random.normal(random.uniform(-0.5, 0.5), random.uniform(0.01, 0.4), 300).clip(-1, 1), 50)
    different = drawn(random.normal(0, random.uniform(0.01, 0.4), 3000).clip(-1, 1), 50)
    told = probabilities(fit_curve(same, different), np.linspace(-1, 1, 401))
    assert (np.diff(told) >= -1e-12).all() and told.min() >= 1 / 52 - 1e-6 and told.max() <= 51 / 52 + 1e-6


def test_well_separated_pairs_give_a_finite_curve_that_knows_its_bounds() -> None:
    curve = fit_curve(drawn(np.full(50, 0.8), 50), drawn(np.full(900, 0.1), 50))
    assert probabilities(curve, np.array([0.1, 0.8])) == pytest.approx([1 / 52, 51 / 52], abs=2e-3)


def test_scores_that_say_nothing_give_even_odds() -> None:
    random = np.random.default_rng(3)
    same, different = drawn(random.normal(0.1, 0.1, 4000), 100), drawn(random.normal(0.3, 0.1, 4000), 100)
    assert probabilities(fit_curve(same, different), np.array([0.0, 0.5])) == pytest.approx([0.5, 0.5], abs=1e-3)


def test_all_at_once_are_as_one_by_one() -> None:
    curve = Curve(intercept=-20.0, low=1.0, high=20.0, wrong=0.01)
    one_by_one = Calibration(model="m", curve=curve).probability
    scores = np.array([-1.0, -0.5, 0.0, 0.33, 0.7, 1.0])
    assert probabilities(curve, scores) == pytest.approx([one_by_one(float(score)) for score in scores])


def test_what_is_told_is_found_among_people_who_were_not_fitted() -> None:
    random = np.random.default_rng(4)
    centres = random.normal(size=(300, 16))
    people = np.repeat(np.arange(300), 4)
    vectors = centres[people] + random.normal(scale=0.8, size=(1200, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    bars = reliability(same_pairs(vectors, people), different_pairs(vectors, people), 300)
    assert sum(bar.share for bar in bars) == pytest.approx(1.0, abs=1e-4)
    assert all(bar.low <= bar.told <= bar.high for bar in bars)
    assert sum(bar.share * abs(bar.told - bar.found) for bar in bars) < 0.03


def test_nobody_is_told_of_by_a_curve_fitted_to_them() -> None:
    """One half's scores say the opposite of the other's: told of each other, they are all wrong."""
    people = 40
    first_half = np.isin(np.arange(people), np.random.default_rng(0).permutation(people)[: people // 2])
    scores = np.where(first_half, 0.8, 0.1)
    bars = reliability(drawn(scores, people), drawn(np.where(first_half, 0.1, 0.8), people), people)
    assert {(bar.low, round(bar.found, 3)) for bar in bars} == {(0.0, 1.0), (0.5, 0.5), (0.9, 0.0)}
