"""Matches of descriptors against a slow definition."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.geometry.features import Features
from retrieval.geometry.matching.matches import match
from tests.support.local import described


def slow_match(a: np.ndarray, b: np.ndarray, max_ratio: float, *, both_ways: bool = True) -> list[list[int]]:
    x, y = (own.astype(np.float64) / np.linalg.norm(own.astype(np.float64), axis=1)[:, None] for own in (a, b))
    apart = np.linalg.norm(x[:, None, :] - y[None, :, :], axis=2)
    found = []
    for row in range(len(x)):
        one, two = np.argsort(apart[row])[:2]
        back, second = np.argsort(apart[:, one])[:2]
        passed = [apart[row, one] < max_ratio * other for other in (apart[row, two], apart[second, one])]
        if back == row and (all(passed) if both_ways else any(passed)):
            found.append([row, int(one)])
    return found


@pytest.mark.parametrize("max_ratio", [0.6, 0.8, 0.95])
def test_matching_equals_the_slow_definition(max_ratio: float) -> None:
    """Some of b are a's, more or less spoilt; some are twice in a or in b: those are nobody's."""
    rng = np.random.default_rng(2)
    a = rng.integers(0, 90, (60, 128))
    spoilt = a[rng.permutation(60)[:45]] + rng.integers(-20, 20, (45, 128)) * rng.uniform(0, 4, (45, 1))
    b = np.concatenate([spoilt, spoilt[:6] + rng.integers(-3, 4, (6, 128)), rng.integers(0, 90, (12, 128))])
    a = np.concatenate([a, a[:9] + rng.integers(-3, 4, (9, 128))])
    a, b = (np.clip(own, 0, 255).astype(np.uint8) for own in (a, b))
    found = match(described(a), described(b), max_ratio=max_ratio)
    assert found.dtype == np.int32
    assert found.tolist() == slow_match(a, b, max_ratio)
    assert len(found) > 10
    more = match(described(a), described(b), max_ratio=max_ratio, both_ways=False)
    assert more.tolist() == slow_match(a, b, max_ratio, both_ways=False)
    assert len(more) > len(found)


def test_real_descriptors_match_as_the_slow_definition_says(photos: dict[tuple[int, int], Features]) -> None:
    a, b = (photos[key].descriptors[:250] for key in ((0, 2), (0, 3)))
    assert match(described(a), described(b)).tolist() == slow_match(a, b, 0.8) != []


@pytest.mark.parametrize("num", [0, 1])
def test_one_feature_has_no_second_nearest_and_matches_nothing(num: int) -> None:
    many = described(np.random.default_rng(0).integers(0, 255, (9, 128)).astype(np.uint8))
    few = described(many.descriptors[:num])
    assert match(few, many).shape == match(many, few).shape == (0, 2)


def test_of_two_alike_the_first_is_matched() -> None:
    own = np.random.default_rng(1).integers(0, 255, (6, 128)).astype(np.uint8)
    a, b = described(own[[0, 1, 1, 2]]), described(own[[1, 3, 2, 4]])
    assert match(a, b, both_ways=False).tolist() == [[1, 0], [3, 2]]
    assert match(b, a, both_ways=False).tolist() == [[0, 1], [2, 3]]
    assert match(a, b).tolist() == [[3, 2]]
