"""Thresholds at false-accept rates, with intervals that know that pairs share people.

Two pairs that share a person are no two independent observations: some people resemble many. The variance of a rate
over pairs is therefore summed over people (cluster-robust for dyads: Aronow, Samii, Assenova, Political Analysis 2015):

    V = sum_p (sum over pairs of p of w (h - r))^2 - sum over pairs of people of (w (h - r))^2

with h whether a pair is accepted, w its weight, r the rate. Wilson's interval is taken with the number of independent
pairs that would have this variance, n = r (1 - r) / V, as Fogliato, Patil and Perona recommend for such rates
(arXiv:2306.01198): resampling people fails where false accepts are few. docs/decisions has both, measured.
"""

from __future__ import annotations

import math

import numpy as np

from retrieval.artifacts.calibration import MANY, Interval, Rate
from retrieval.evaluation.calibration.pairs import Pairs

LEAST_FALSE_ACCEPTS = 10.0
"""Independent false accepts that a promised rate rests on at least: the true rate is then within a factor of two."""

LEAST_PEOPLE = 40
"""People that a promised rate rests on at least: what they have in common cannot be told from fewer."""

_Z, _SURE = 1.959964, 2.575829  # two sides of 95 and of 99 in 100


def rate_at(far: float, same: Pairs, different: Pairs, subject: str = "person") -> Rate:
    """The threshold that `far` of the pairs of different people reach, how sure it is, and what it accepts of the same.

    Without a threshold, and with the reason, where fewer than `LEAST_FALSE_ACCEPTS` or `LEAST_PEOPLE` stand behind it.
    """
    threshold = threshold_at(different, far)
    if threshold is None or len(same) == 0:
        return Rate(far=far, why=_too_few(far, different, 0.0, MANY[subject]))
    reached, variance = reach(different, threshold), variance_of(different, threshold)
    independent = reached * (1 - reached) / variance
    if (found := reached * independent) < LEAST_FALSE_ACCEPTS or different.people < LEAST_PEOPLE:
        return Rate(far=far, false_accepts=_short(found), why=_too_few(far, different, found, MANY[subject]))
    spread = _Z * math.sqrt(variance)
    low, high = threshold_at(different, far + spread), threshold_at(different, far - spread)
    if low is None or high is None:
        equal = int((different.scores == different.scores[0]).sum())
        why = f"{equal} pairs of different {MANY[subject]} share the highest score: one photo under many names?"
        return Rate(far=far, false_accepts=_short(found), why=why)
    accepted = reach(same, threshold)
    return Rate(
        far=far,
        threshold=_short(threshold),
        threshold_interval=(_short(low), _short(high)),
        far_interval=wilson(reached, independent / 2, _SURE),  # half: the others' variance, and ours
        true_accept=_short(accepted),
        true_accept_interval=wilson(accepted, same.people / 2, _SURE),  # as if all pairs of a person were alike
        false_accepts=_short(found),
    )


def threshold_at(pairs: Pairs, share: float) -> float | None:
    """A score that at most `share` of the pairs reach, half-way to the next pair; None if the best pair is too much."""
    reached = np.cumsum(pairs.weights)
    num = int(np.searchsorted(reached, share * (1 + 1e-12), side="right"))
    while 0 < num < len(pairs) and pairs.scores[num] == pairs.scores[num - 1]:
        num -= 1
    if num == 0:
        return None
    if num == len(pairs):
        return float(pairs.scores[-1])
    return (float(pairs.scores[num - 1]) + float(pairs.scores[num])) / 2


def reach(pairs: Pairs, threshold: float) -> float:
    """The share of the pairs that score at least `threshold`."""
    return float(min(1.0, pairs.weights[: _num_above(pairs, threshold)].sum()))


def variance_of(different: Pairs, threshold: float) -> float:
    """Variance of `reach` from one set of as many people to the next: the equation above.

    At least that of as many independent pairs of people, and above 0 where any pair reaches the threshold. Every person
    takes part in equally many pairs of people, so that those not accepted need not be looked at.
    """
    num = _num_above(different, threshold)
    first, second, weights = different.first[:num], different.second[:num], different.weights[:num]
    rate, people, draws = float(weights.sum()), different.people, different.draws
    apart = float((np.bincount(different.draw[:num], weights=weights) ** 2).sum()) - rate**2 / draws
    of_people = np.bincount(np.concatenate([first, second]), weights=np.concatenate([weights, weights]))
    together = float((of_people**2).sum()) - (2 * rate) ** 2 / people
    return max(together - apart, apart, 1e-300) * people / max(people - 1, 1)


def wilson(rate: float, num: float, z: float = _Z) -> Interval:
    """Wilson's interval of a rate seen in `num` independent observations, by default 95 in 100 (JASA 22, 1927)."""
    square = z * z / num
    centre = (rate + square / 2) / (1 + square)
    half = z * math.sqrt(max(rate * (1 - rate), 0.0) / num + square / num / 4) / (1 + square)
    return _short(max(centre - half, 0.0)), _short(min(centre + half, 1.0))


def _num_above(pairs: Pairs, threshold: float) -> int:
    return int(np.searchsorted(-pairs.scores, -threshold, side="right"))


def _too_few(far: float, different: Pairs, false_accepts: float, many: str) -> str:
    """Why nothing is promised, and what it would take."""
    needed = math.sqrt(2 * LEAST_FALSE_ACCEPTS / far)
    if false_accepts > 1:
        needed = different.people * math.sqrt(LEAST_FALSE_ACCEPTS / false_accepts)
    return (
        f"{different.people} labelled {many} are too few for a false-accept rate of {far:g}: it would rest on "
        f"{false_accepts:.1f} independent false accepts and needs {LEAST_FALSE_ACCEPTS:.0f}, so about "
        f"{max(math.ceil(needed / 10) * 10, LEAST_PEOPLE)} {many}"
    )


def _short(value: float) -> float:
    """As many digits as mean something."""
    return float(f"{value:.6g}")
