"""Photos that are linked become groups: two groups are one if their photos are alike on average, and the best go first.

Average linkage (Sokal and Michener, 1958) over the links alone. The mean cosine of two groups is that of all pairs
between them, linked or not, since it follows from the sums of their vectors: mean(A, B) = sum(A) . sum(B) / (|A| |B|).
So a chain of look-alikes makes no group of strangers, and no matrix of all pairs is needed. Each round merges every two
groups that are each other's best, as reciprocal agglomerative clustering does (Sumengen et al., arXiv:2105.11653);
where all pairs are linked that is average linkage itself, because a merger of two is never closer to a third than the
closer of the two was. For the same reason a link below the threshold is let go for good.

Memory: two vectors a photo, and a few numbers a link. Shapes: N photos, E links, D dimensions.
"""

from __future__ import annotations

import numpy as np

from retrieval.artifacts.progress import Progress, silent

_BLOCK = 1 << 15  # links scored at once: 32 MiB of 128 numbers


def merge(
    vectors: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    threshold: float,
    start: np.ndarray | None = None,
    progress: Progress = silent,
) -> np.ndarray:
    """Which group each photo is in.

    Args:
        vectors: (N, D) float32, L2-normalised, in an order that settles ties, such as that of image_id.
        low, high: (E,) int, low < high: rows that are linked, each pair once.
        threshold: the least mean cosine of two groups that are made one.
        start: (N,) int64, the smallest row of each photo's group to begin with; None: each is alone.

    Returns: (N,) int64, the smallest row of each photo's group: its own where nobody is with it.

    Example:
        >>> x = np.array([[1, 0], [0.8, 0.6], [0.28, 0.96], [-1, 0]], dtype=np.float32)
        >>> merge(x, np.array([0, 1, 2]), np.array([1, 2, 3]), threshold=0.6).tolist()
        [0, 1, 1, 3]
    """
    into, changed = np.arange(len(vectors)), np.zeros(len(vectors), dtype=bool)
    sums, sizes = vectors.astype(np.float32, copy=True), np.ones(len(vectors), dtype=np.int64)
    low, high, num = low.astype(np.int64), high.astype(np.int64), len(low)
    if start is not None:
        joined = np.flatnonzero(start != into)
        np.add.at(sums, start[joined], vectors[joined])
        np.add.at(sizes, start[joined], 1)
        into = start.copy()
        low, high = _renamed(start[low], start[high], len(vectors))
    scores = _means(sums, sizes, low, high)
    while True:
        close = scores >= threshold
        low, high, scores = low[close], high[close], scores[close]
        progress("merge", num - len(low), num)
        if not len(low):
            return roots(into)
        first, second = _each_others_best(low, high, scores, len(vectors))
        sums[first] += sums[second]
        sizes[first] += sizes[second]
        into[second] = first
        changed[first] = changed[second] = True
        moved = changed[low] | changed[high]
        new_low, new_high = _renamed(into[low[moved]], into[high[moved]], len(vectors))
        low, high = np.concatenate([low[~moved], new_low]), np.concatenate([high[~moved], new_high])
        scores = np.concatenate([scores[~moved], _means(sums, sizes, new_low, new_high)])
        changed[first] = changed[second] = False


def cohesion(vectors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(N,) float32: the mean cosine of each photo with the others of its group; NaN for one that is alone.

    Args: vectors: (N, D) float32, L2-normalised. groups: (N,) int, as `merge` returns.
    """
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    out, order = np.full(len(vectors), np.nan, dtype=np.float32), np.argsort(codes, kind="stable")
    for end, size in zip(np.cumsum(sizes), sizes, strict=True):
        if size > 1:
            rows = order[end - size : end]
            mine = vectors[rows].astype(np.float64)
            out[rows] = (mine @ mine.sum(axis=0) - (mine * mine).sum(axis=1)) / (size - 1)
    return out


def roots(into: np.ndarray) -> np.ndarray:
    """(N,) int64: the end of each row's way. Args: into: (N,) int64, each points at a smaller row or at itself."""
    while True:
        further = into[into]
        if np.array_equal(further, into):
            return into
        into = further


def _means(sums: np.ndarray, sizes: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(E,) float64: the mean cosine of all pairs between two groups, for each link."""
    out = np.empty(len(low))
    for start in range(0, len(low), _BLOCK):
        one, other = low[start : start + _BLOCK], high[start : start + _BLOCK]
        dots = np.einsum("ed,ed->e", sums[one], sums[other], dtype=np.float64)
        out[start : start + _BLOCK] = dots / (sizes[one] * sizes[other])
    return out


def _each_others_best(low: np.ndarray, high: np.ndarray, scores: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Links whose two ends have none that is better. Of several equal ones at an end, the one of the smallest rows."""
    best = np.full(num, -np.inf)
    np.maximum.at(best, low, scores)
    np.maximum.at(best, high, scores)
    mutual = np.flatnonzero((scores == best[low]) & (scores == best[high]))
    mutual = mutual[np.lexsort((high[mutual], low[mutual]))]
    first, second, place = low[mutual], high[mutual], np.arange(len(mutual))
    foremost = np.full(num, len(mutual))
    np.minimum.at(foremost, first, place)
    np.minimum.at(foremost, second, place)
    free = (foremost[first] == place) & (foremost[second] == place)
    return first[free], second[free]


def _renamed(one: np.ndarray, other: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Links between groups after a round, each once, none within a group."""
    low, high = np.minimum(one, other), np.maximum(one, other)
    keys = np.unique((low * num + high)[low != high])
    return keys // num, keys % num
