"""Slow and plain: what a ranking is worth, worked out as it is defined, for tests to compare with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def slow_average_precision(ranks: Sequence[int], num_positives: int) -> float:
    """By the Oxford5k tool's loop. Args: ranks: zero-based, ascending, without junk."""
    total = 0.0
    for j, rank in enumerate(ranks):
        before = 1.0 if rank == 0 else j / rank
        total += (before + (j + 1) / (rank + 1)) / 2 / num_positives
    return total


def slow_ranks(ranking: Sequence[int], positives: Sequence[int], junk: Sequence[int] = ()) -> list[int]:
    """Zero-based ranks of the positives once junk (and -1, no result) was taken out."""
    kept = [row for row in ranking if row >= 0 and row not in set(junk)]
    return [rank for rank, row in enumerate(kept) if row in set(positives)]


def slow_ranking(query: np.ndarray, gallery: np.ndarray, excluded: int = -1) -> list[int]:
    """All rows by score, in float64 rounded to float32; equal ones in order of row."""
    scores = [np.float32((query.astype(float) * vector.astype(float)).sum()) for vector in gallery]
    return sorted((row for row in range(len(gallery)) if row != excluded), key=lambda row: (-scores[row], row))


def slow_map(
    rankings: Sequence[Sequence[int]], positives: Sequence[Sequence[int]], junk: Sequence[Sequence[int]]
) -> float:
    """Mean average precision of the queries that have a positive; NaN if none has. Args: rows of the gallery."""
    found = [
        slow_average_precision(slow_ranks(ranking, good, bad), len(good))
        for ranking, good, bad in zip(rankings, positives, junk, strict=True)
        if len(good)
    ]
    return float(np.mean(found)) if found else float("nan")
