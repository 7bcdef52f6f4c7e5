"""Which candidate is kept: the one of most mAP on people or places that none was trained on, or none of them.

Whether it gains is a question about people, of whom val holds few: photos of one person stand or fall together, so the
standard error of a difference is that of sums over people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval.evaluation.metrics import RetrievalMetrics, leave_one_out
from retrieval.models.adapters.adapter import Adapter
from retrieval.training.adapters.vectors import Side

IDENTITY = "identity"
KS = (1, 5, 10)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """A candidate on val, each photo asking all others.

    values: recall@K and mAP. gain, error: of mAP over the identity's, and its standard error. recall_gain,
    recall_error: of recall@1. kept: whether it may be chosen.
    """

    values: dict[str, float]
    gain: float = 0.0
    error: float = 0.0
    recall_gain: float = 0.0
    recall_error: float = 0.0
    kept: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """figures: name -> figures, the identity first. winner: IDENTITY where no candidate gains enough."""

    figures: dict[str, Figures]
    winner: str


def choose(adapters: Mapping[str, Adapter], val: Side, least_gain: float) -> Choice:
    """Score the identity and all candidates.

    A candidate may be chosen if its mAP is above the identity's by more than `least_gain` standard errors, and its
    recall@1 not below it by more than one. Of these the one of most mAP wins; of equal ones the first.
    """
    plain = leave_one_out(val.vectors, val.labels, ks=KS)
    found, winner = {IDENTITY: Figures(values=plain.values)}, IDENTITY
    for name, adapter in adapters.items():
        found[name] = _beside(plain, leave_one_out(adapter(val.vectors), val.labels, ks=KS), val.labels, least_gain)
        if found[name].kept and found[name].values["mAP"] > found[winner].values["mAP"]:
            winner = name
    return Choice(figures=found, winner=winner)


def _beside(plain: RetrievalMetrics, other: RetrievalMetrics, labels: np.ndarray, least_gain: float) -> Figures:
    gain, error = difference(other.average_precision - plain.average_precision, labels)
    hits = (other.first_hit == 0).astype(np.float64) - (plain.first_hit == 0)
    hits[plain.first_hit < 0] = np.nan
    recall_gain, recall_error = difference(hits, labels)
    return Figures(
        values=other.values,
        gain=gain,
        error=error,
        recall_gain=recall_gain,
        recall_error=recall_error,
        kept=gain > least_gain * error and recall_gain >= -recall_error,
    )


def difference(values: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The mean of what each photo gains, and its standard error, where photos of one label are no independent ones.

    With d_i of N photos and their mean m, and of each of the L labels the sum s_l of (d_i - m): sqrt(L / (L - 1) sum_l
    s_l^2) / N, which takes people, not photos, as drawn.

    Args: values: (N,) float64, NaN for photos that nothing matches: they are left out. labels: (N,) int64, two or more.
    """
    asked = ~np.isnan(values)
    values, numbers = values[asked], np.unique(labels[asked], return_inverse=True)[1]
    mean = values.mean()
    sums = np.bincount(numbers, values - mean)
    return float(mean), float(np.sqrt(len(sums) / (len(sums) - 1) * np.square(sums).sum()) / len(values))


def told(choice: Choice) -> dict[str, Any]:
    """As it is written: name -> figures; identity has no gain."""
    return {
        name: figures.values
        | ({} if name == IDENTITY else {field: getattr(figures, field) for field in _TOLD})
        | {"chosen": name == choice.winner}
        for name, figures in choice.figures.items()
    }


_TOLD = ("gain", "error", "recall_gain", "recall_error", "kept")
