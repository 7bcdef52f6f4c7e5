"""Thresholds keep their rates on people who were not there, and where too few stand behind one, nothing is promised."""

from __future__ import annotations

import math

import numpy as np
import pytest

from retrieval.evaluation.calibration.pairs import Pairs, different_pairs, same_pairs
from retrieval.evaluation.calibration.rates import rate_at, reach, threshold_at, variance_of, wilson


def pairs_of(scores: list[float], weights: list[float] | None = None) -> Pairs:
    num = len(scores)
    people = np.arange(num, dtype=np.int32)
    weights = weights or [1 / num] * num
    return Pairs(
        scores=np.array(scores, np.float32),
        first=people,
        second=people + num,
        draw=people,
        weights=np.array(weights),
        people=2 * num,
        draws=num,
    )


def drawn(seed: int, num: int, alike: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """(N, 24) unit vectors of `num` people with 1 to 4 photos, some of whom resemble many: they lie near one spot."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(num, 24)) + alike * random.exponential(size=(num, 1)) * np.eye(24)[0] * 6
    people = np.repeat(np.arange(num), random.integers(1, 5, size=num))
    vectors = centres[people] + 0.5 * random.normal(size=(len(people), 24))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), people


def test_a_threshold_lies_half_way_above_the_pair_that_is_too_much() -> None:
    pairs = pairs_of([0.9, 0.7, 0.5, 0.1])
    assert threshold_at(pairs, 0.25) == pytest.approx(0.8)
    assert threshold_at(pairs, 0.49) == pytest.approx(0.8)
    assert threshold_at(pairs, 0.5) == pytest.approx(0.6)
    assert threshold_at(pairs, 0.2) is None
    assert threshold_at(pairs, 1.0) == pytest.approx(0.1)


def test_equal_scores_stay_together() -> None:
    pairs = pairs_of([0.9, 0.7, 0.7, 0.7, 0.1])
    threshold = threshold_at(pairs, 0.6)
    assert threshold is not None and threshold == pytest.approx(0.8) and reach(pairs, threshold) == pytest.approx(0.2)
    assert threshold_at(pairs_of([0.7, 0.7, 0.1]), 0.5) is None


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_is_reached_by_more_than_its_share(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = sorted(random.integers(0, 12, size=40) / 12, reverse=True)
    weights = random.dirichlet(np.ones(40))
    pairs = pairs_of(scores, weights.tolist())
    for share in random.uniform(0, 1, size=10):
        threshold = threshold_at(pairs, share)
        if threshold is None:
            assert pairs.weights[pairs.scores == pairs.scores[0]].sum() > share - 1e-9
        else:
            assert reach(pairs, threshold) <= share + 1e-9


def test_wilsons_interval_is_the_published_one() -> None:
    assert wilson(0.1, 100) == pytest.approx((0.05523, 0.17437), abs=1e-4)
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.27753), abs=1e-4)
    assert wilson(1.0, 10) == pytest.approx((0.72247, 1.0), abs=1e-4)


def test_the_variance_is_the_sum_over_pairs_of_pairs_that_share_a_person() -> None:
    vectors, people = drawn(0, 12)
    pairs = different_pairs(vectors, people)
    threshold = threshold_at(pairs, 0.2)
    assert threshold is not None
    rate, by_hand = reach(pairs, threshold), {}
    for a, b, weight, score in zip(pairs.first, pairs.second, pairs.weights, pairs.scores, strict=True):
        key = (min(a, b), max(a, b))
        by_hand[key] = by_hand.get(key, 0.0) + weight * (float(score >= threshold) - rate)
    total = sum(x * y for one, x in by_hand.items() for other, y in by_hand.items() if set(one) & set(other))
    alone = sum(x * x for x in by_hand.values())
    # Of pairs not accepted, only what is lost of h in {0, 1} within a pair of people differs: none, as weights add up.
    assert variance_of(pairs, threshold) == pytest.approx(max(total, alone) * 12 / 11, rel=1e-6)


def test_the_variance_is_what_other_people_show() -> None:
    threshold, told, seen = 0.6, [], []
    for seed in range(40):
        pairs = different_pairs(*drawn(seed, 80))
        told.append(variance_of(pairs, threshold))
        seen.append(reach(pairs, threshold))
    independent = np.mean(seen) / (80 * 79 / 2)
    assert np.var(seen) > 3 * independent, "the people drawn here do resemble each other"
    assert np.mean(told) == pytest.approx(np.var(seen), rel=0.5)


def test_promised_intervals_hold_on_as_many_other_people() -> None:
    """Over 40 pairs of sets: nominal is 99 in 100 for what others show; the true rate is taken from many more."""
    many = different_pairs(*drawn(10_000, 1500, 0.15), most=400_000)
    held, true, above = [], [], []
    for seed in range(40):
        vectors, people = drawn(seed, 120, 0.15)
        rate = rate_at(1e-2, same_pairs(vectors, people), different_pairs(vectors, people))
        assert rate.promised and rate.threshold is not None, rate.why
        assert rate.far_interval and rate.threshold_interval
        others = reach(different_pairs(*drawn(seed + 500, 120, 0.15)), rate.threshold)
        held.append(rate.far_interval[0] <= others <= rate.far_interval[1])
        true.append(rate.far_interval[0] <= reach(many, rate.threshold) <= rate.far_interval[1])
        above.append(reach(many, rate.threshold_interval[1]) <= 1e-2)
    assert np.mean(held) >= 0.95 and np.mean(true) >= 0.97 and np.mean(above) >= 0.9


def test_a_rate_says_what_it_rests_on() -> None:
    vectors, people = drawn(1, 200)
    same, different = same_pairs(vectors, people), different_pairs(vectors, people)
    rate = rate_at(1e-2, same, different)
    assert rate.threshold_interval and rate.far_interval and rate.true_accept_interval
    assert rate.threshold is not None and rate.true_accept is not None
    assert rate.threshold_interval[0] < rate.threshold < rate.threshold_interval[1]
    own = wilson(1e-2, rate.false_accepts / 1e-2)
    assert rate.far_interval[0] < own[0] < 1e-2 < own[1] < rate.far_interval[1], "the others have chance of their own"
    assert rate.true_accept == pytest.approx(reach(same, rate.threshold), abs=1e-3)
    assert rate.true_accept_interval[0] < rate.true_accept < rate.true_accept_interval[1]
    assert 10 <= rate.false_accepts < 1e-2 * len(different)


def test_too_few_people_promise_nothing_and_say_how_many_it_takes() -> None:
    vectors, people = drawn(2, 60)
    same, different = same_pairs(vectors, people), different_pairs(vectors, people)
    rate = rate_at(1e-4, same, different)
    assert not rate.promised and rate.threshold_interval is None and rate.true_accept is None
    assert "60 labelled people are too few for a false-accept rate of 0.0001" in rate.why
    needed = int(rate.why.rpartition("about ")[2].partition(" ")[0])
    assert needed > 60 or math.isclose(rate.false_accepts, 0)
    few = rate_at(1e-2, same_pairs(*drawn(3, 30)), different_pairs(*drawn(3, 30)))
    assert not few.promised and "40 people" in few.why


def test_one_photo_under_many_names_promises_nothing_and_is_said() -> None:
    """600 people, of whom 54 are shown by the same blank photo: their pairs score 1, and no score is above them."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(630, 64))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[:54] = vectors[0]
    labels = np.concatenate([np.arange(600), np.arange(100, 130)])
    vectors = vectors.astype(np.float32)
    same, different = same_pairs(vectors, labels), different_pairs(vectors, labels)
    found = rate_at(1e-2, same, different)
    assert found.threshold is None and "share the highest score" in found.why


def test_without_any_pair_nothing_is_promised() -> None:
    nobody = np.zeros((0, 4), np.float32), np.zeros(0, dtype=np.int64)
    assert not rate_at(1e-2, same_pairs(*nobody), different_pairs(*nobody)).promised
