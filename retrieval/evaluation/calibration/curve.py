"""Score to probability: beta calibration with a share of labels that are wrong, on pairs drawn by people.

    ln(q / (1 - q)) = c + a ln u - b ln(1 - u),   u = (1 + score) / 2,   a, b >= 0;   p = e + (1 - 2 e) q

q as Kull, Silva Filho and Flach have it ("Beta calibration", AISTATS 2017), half of all pairs being the same. Every set
of photos has some under a wrong name: without e a handful of them flattens the whole curve. Of this, a straight line in
the score and isotonic regression, it told least wrong of people held aside: docs/decisions has the figures.
"""

from __future__ import annotations

import numpy as np

from retrieval.artifacts.calibration import Bin, Curve
from retrieval.evaluation.calibration.pairs import Pairs

_CELLS = 4000
"""Scores are counted in cells of 0.0005 first: the fit then costs the same however many pairs there are."""

_STEPS = 200

_FLATTEN = 1e-6
"""Weight of the squared powers, over the number of people: it matters only where no pair contradicts a step."""


def fit_curve(same: Pairs, different: Pairs) -> Curve:
    """The curve of greatest likelihood.

    The share of wrong labels is taken to be 1 / (n + 2) of n people: so few cannot show that anything is rarer.
    """
    centres = (np.arange(_CELLS) + 0.5) / _CELLS
    hits, others = _counted(same) / 2, _counted(different) / 2
    seen = hits + others > 0
    features = np.stack([np.ones(_CELLS), np.log(centres), -np.log1p(-centres)], axis=1)[seen]
    people = min(same.people, different.people)
    wrong = 1 / (people + 2)
    found = _best_powers(features, hits[seen], others[seen], wrong, _FLATTEN / people)[0]
    intercept, low, high, wrong = (float(f"{value:.6g}") for value in (*found, wrong))
    return Curve(intercept=intercept, low=low, high=high, wrong=wrong)


def probabilities(curve: Curve, scores: np.ndarray) -> np.ndarray:
    """(P,) float64 at an even prior, as `Calibration.probability` gives them one by one."""
    u = np.clip((1 + scores.astype(np.float64)) / 2, 1e-6, 1 - 1e-6)
    return curve.wrong + (1 - 2 * curve.wrong) * _logistic(
        curve.intercept + curve.low * np.log(u) - curve.high * np.log1p(-u)
    )


def reliability(same: Pairs, different: Pairs, people: int, bins: int = 10, seed: int = 0) -> tuple[Bin, ...]:
    """What was told beside what was found: each half of the people is told of by a curve of the other half.

    Args: people: one more than the largest number of a person. Returns: the bars that hold any pair.
    """
    half = np.zeros(people, dtype=bool)
    half[np.random.default_rng(seed).permutation(people)[: people // 2]] = True
    told, hit, weight = [], [], []
    for fitted_on, told_of in ((half, ~half), (~half, half)):
        curve = fit_curve(same.among(fitted_on), different.among(fitted_on))
        for pairs, truth in ((same.among(told_of), 1.0), (different.among(told_of), 0.0)):
            told.append(probabilities(curve, pairs.scores))
            hit.append(np.full(len(pairs), truth))
            weight.append(pairs.weights / 4)
    values, truths, shares = (np.concatenate(part) for part in (told, hit, weight))
    bars = np.minimum((values * bins).astype(np.int64), bins - 1)
    total, mean, found = (np.bincount(bars, weights=shares * part, minlength=bins) for part in (1.0, values, truths))
    return tuple(
        Bin(
            low=bar / bins,
            high=(bar + 1) / bins,
            told=float(f"{mean[bar] / total[bar]:.6g}"),
            found=float(f"{found[bar] / total[bar]:.6g}"),
            share=float(f"{total[bar]:.6g}"),
        )
        for bar in np.flatnonzero(total).tolist()
    )


def _counted(pairs: Pairs) -> np.ndarray:
    cells = np.clip(((pairs.scores.astype(np.float64) + 1) / 2 * _CELLS).astype(np.int64), 0, _CELLS - 1)
    return np.bincount(cells, weights=pairs.weights, minlength=_CELLS)


def _logistic(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(z, -700, 700)))


def _best_powers(
    features: np.ndarray, hits: np.ndarray, others: np.ndarray, noise: float, flatten: float
) -> tuple[np.ndarray, float]:
    """(c, a, b) with a, b >= 0, and the loss: a power that comes out below 0 is left out, the rest fitted anew."""
    counts = (hits, others, noise, flatten)
    found = _scoring(features, [0, 1, 2], *counts)
    if found[0][1:].min() < 0:
        found = min((_scoring(features, [0, column], *counts) for column in (1, 2)), key=lambda one: one[1])
    if found[0][1:].min() < 0:  # higher scores are not more often the same: they say nothing
        found = _scoring(features, [0], *counts)
    return found


def _scoring(
    features: np.ndarray, used: list[int], hits: np.ndarray, others: np.ndarray, noise: float, flatten: float
) -> tuple[np.ndarray, float]:
    """Fisher scoring on the columns `used`: (3,) coefficients, 0 elsewhere, and the loss. Steps are halved until they
    help."""
    x, beta, total = features[:, used], np.zeros(len(used)), hits + others
    ridge = np.where(np.array(used) > 0, flatten, 1e-12)

    def loss(at: np.ndarray) -> float:
        p = noise + (1 - 2 * noise) * _logistic(x @ at)
        return float(-hits @ np.log(p) - others @ np.log1p(-p) + ridge @ (at * at))

    now = loss(beta)
    for _ in range(_STEPS):
        q = _logistic(x @ beta)
        p, slope = noise + (1 - 2 * noise) * q, (1 - 2 * noise) * q * (1 - q)
        pull = slope / (p * (1 - p))
        gradient = x.T @ (pull * (total * p - hits)) + 2 * ridge * beta
        curvature = (x * (total * pull * slope)[:, None]).T @ x + np.diag(2 * ridge + 1e-12)
        step, before = np.linalg.solve(curvature, gradient), now
        while (now := loss(beta - step)) > before and np.abs(step).max() > 1e-12:
            step = step / 2
        beta = beta - step
        if before - now < 1e-12:
            break
    out = np.zeros(features.shape[1])
    out[used] = beta
    return out, now
