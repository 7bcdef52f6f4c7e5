"""Photos that are linked become groups: two groups are one if their photos are alike on average, and the best go first.

Average linkage (Sokal and Michener, 1958) over the links alone. The mean cosine of two groups is that of all pairs
between them, linked or not, since it follows from the sums of their vectors: mean(A, B) = sum(A) . sum(B) / (|A| |B|).
So a chain of look-alikes makes no group of strangers, and no matrix of all pairs is needed. Each round merges every two
groups that are each other's best, as reciprocal agglomerative clustering does (Sumengen et al., arXiv:2105.11653);
where all pairs are linked that is average linkage itself, because a merger of two is never closer to a third than the
closer of the two was. For the same reason a link below the threshold is let go for good.

Memory: a vector and 75 bytes a photo, 15 a link (benchmarks/bench_merge.py), as arrays are made smaller one by one.
Shapes: N photos, E links, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from retrieval.artifacts.progress import Progress, silent

_BLOCK = 1 << 15  # links scored at once: 32 MiB of 128 numbers


def merge(
    sums: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    threshold: float,
    start: np.ndarray | None = None,
    progress: Progress = silent,
) -> np.ndarray:
    """Which group each photo is in.

    Args:
        sums: (N, D) float32, the photos' vectors, L2-normalised, in an order that settles ties, such as that of
            image_id. They are added up where they lie: the smallest row of a group holds the sum of its photos then.
        low, high: (E,) int, low < high: rows that are linked, each pair once.
        threshold: the least mean cosine of two groups that are made one.
        start: (N,) int, the smallest row of each photo's group to begin with; None: each is alone.

    Returns: (N,) int32, the smallest row of each photo's group: its own where nobody is with it.

    Example:
        >>> x = np.array([[1, 0], [0.8, 0.6], [0.28, 0.96], [-1, 0]], dtype=np.float32)
        >>> merge(x, np.array([0, 1, 2]), np.array([1, 2, 3]), threshold=0.6).tolist()
        [0, 1, 1, 3]
    """
    into, changed, sizes = _begin(sums, start)
    low, high, num = low.astype(np.int32, copy=False), high.astype(np.int32, copy=False), len(low)
    if start is not None:
        low, high = _renamed(into[low], into[high], len(sums))
    scores = _means(sums, sizes, low, high)
    while True:
        close = scores >= threshold
        low = low[close]  # one after another, so that the three are never there twice
        high = high[close]
        scores = scores[close]
        progress("merge", num - len(low), num)
        if not len(low):
            return roots(into)
        first, second = _each_others_best(low, high, scores, len(sums))
        _add(sums, first, second)
        sizes[first] += sizes[second]
        into[second] = first
        changed[first] = changed[second] = True
        moved = changed[low] | changed[high]
        new_low, new_high = _renamed(into[low[moved]], into[high[moved]], len(sums))
        stays = ~moved
        low = _with(low, stays, new_low)
        high = _with(high, stays, new_high)
        scores = _with(scores, stays, _means(sums, sizes, new_low, new_high))
        changed[first] = changed[second] = False


def cohesion(vectors: Iterable[tuple[np.ndarray, np.ndarray]], groups: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """(N,) float32: the mean cosine of each photo with the others of its group; NaN for one that is alone.

    Args:
        vectors: some rows (n,) and their (n, D) float32 vectors, L2-normalised, until all were there.
        groups, sums: (N,) int32 and (N, D) float32, as `merge` leaves them.
    """
    sizes, out = np.bincount(groups, minlength=len(groups)), np.full(len(groups), np.nan, dtype=np.float32)
    for rows, found in vectors:
        together = sizes[groups[rows]] > 1
        mine, own = rows[together], found[together].astype(np.float64)
        of = groups[mine]
        with_all = np.einsum("nd,nd->n", own, sums[of]) - np.einsum("nd,nd->n", own, own)
        out[mine] = with_all / (sizes[of] - 1)
    return out


def roots(into: np.ndarray) -> np.ndarray:
    """(N,) int: the end of each row's way. Args: into: (N,) int, each points at a smaller row or at itself."""
    while True:
        further = into[into]
        if np.array_equal(further, into):
            return into
        into = further


def distinct(keys: np.ndarray) -> np.ndarray:
    """(K,) int64, ascending, each once. Args: keys: (n,) int64; they are sorted where they lie."""
    keys.sort()
    new = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    return keys[new]


def split_keys(keys: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """(K,) int32 each: low and high. Args: keys: (K,) int64, low * num + high."""
    low, high = np.empty(len(keys), dtype=np.int32), np.empty(len(keys), dtype=np.int32)
    np.floor_divide(keys, num, out=low, casting="unsafe")
    np.remainder(keys, num, out=high, casting="unsafe")
    return low, high


def _begin(sums: np.ndarray, start: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each row points, who grew, and how many each group has, all (N,)."""
    num = len(sums)
    into, sizes = np.arange(num, dtype=np.int32), np.ones(num, dtype=np.int64)
    if start is not None:
        joined = np.flatnonzero(start != into)
        _add(sums, start[joined], joined)
        np.add.at(sizes, start[joined], 1)
        into = start.astype(np.int32)
    return into, np.zeros(num, dtype=bool), sizes


def _add(sums: np.ndarray, to: np.ndarray, rows: np.ndarray) -> None:
    """Add these rows to those, one after another, also where several go to one."""
    for start in range(0, len(rows), _BLOCK):
        some = slice(start, start + _BLOCK)
        np.add.at(sums, to[some], sums[rows[some]])


def _with(old: np.ndarray, stays: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Those that stay, then the new ones."""
    num = np.count_nonzero(stays)
    out = np.empty(num + len(new), dtype=old.dtype)
    np.compress(stays, old, out=out[:num])
    out[num:] = new
    return out


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
    keys = np.minimum(one, other).astype(np.int64)
    keys *= num
    keys += np.maximum(one, other)
    return split_keys(distinct(keys[one != other]), num)
