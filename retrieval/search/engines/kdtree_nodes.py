"""The nodes of a KD-tree: the rule by which each sends a vector left or right, and how the tree is grown.

Every inner node holds a weight vector W and a threshold t in (0, 1), and sends a vector f by the sign of
S = sigmoid(W.f - t) - t: S >= 0 goes right. The sigmoid rises, so with logit(t) = log(t / (1 - t)) its inverse,

    sigmoid(W.f - t) >= t   <=>   W.f - t >= logit(t)   <=>   W.f >= t + logit(t),

a plain hyperplane. t + logit(t) rises from -inf to inf on (0, 1), so every threshold belongs to exactly one t
(`solve_t`), and a node can be split at its median whatever the median is.

W is a principal axis of the vectors, divided by one scale so that |W.f| <= 1. Axes are orthogonal, so the squared
distances from a query to the slabs that bound a node add up to an exact lower bound on the squared distance to every
vector in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval.search.blocks import BLOCK

_MAX_AXES = 64  # leading principal axes that a node may split on: more than a tree of 2^64 leaves could use

_PCA_SAMPLE = 20_000
_SPREAD_SAMPLE = 1 << 13


def sigmoid(z: np.ndarray | float) -> np.ndarray | float:
    """1 / (1 + exp(-z)), without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(z, dtype=np.float64)))


def goes_right(projection: np.ndarray | float, t: np.ndarray | float) -> np.ndarray:
    """The node rule: S = sign(sigmoid(W.f - t) - t), S >= 0 goes right. `projection` is W.f. Returns bool."""
    return np.asarray(np.sign(sigmoid(np.asarray(projection) - t) - t) >= 0)


def threshold_of(t: np.ndarray | float) -> np.ndarray | float:
    """t + logit(t): the W.f from which the node rule goes right."""
    return t + np.log(t) - np.log1p(-np.asarray(t, dtype=np.float64))


def solve_t(threshold: float) -> float:
    """The one t in (0, 1) with t + logit(t) = threshold, by bisection; about 1e-16 exact for |threshold| <= 1."""
    low, high = 0.0, 1.0
    for _ in range(64):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (middle, high) if threshold_of(middle) < threshold else (low, middle)
    return 0.5 * (low + high)


@dataclass(frozen=True, slots=True)
class Nodes:
    """The tree in flat arrays of M nodes, in breadth-first order; the children of a node lie side by side.

    child: (M,) int32, left child, the right one next to it; -1 for a leaf. axis: (M,) int32, row of `axes`.
    t: (M,) float64, the rule's threshold. level_ends: (depth,) int32, where each level ends.
    low, high: (M,) float64, the node's extent along its own split axis, in units of the vectors (inf where unbounded).
    left_high, right_low: (M,) float64, extent of the children towards the hyperplane: on either side of it, and no
    nearer to it than their outermost vector.
    start, end: (M,) int64, the node's vectors, as a slice of those stored. max_norm: (M,) float64, their largest norm.
    """

    child: np.ndarray
    axis: np.ndarray
    t: np.ndarray
    level_ends: np.ndarray
    low: np.ndarray
    high: np.ndarray
    left_high: np.ndarray
    right_low: np.ndarray
    start: np.ndarray
    end: np.ndarray
    max_norm: np.ndarray


def grow(vectors: np.ndarray, leaf_size: int) -> tuple[Nodes, np.ndarray, float, np.ndarray]:
    """Split at the median of the axis with most variance until leaves hold at most `leaf_size`.

    Args:
        vectors: (n, D) float32, n > 0, finite, of any length. Equal vectors share a leaf, however many.

    Returns: the nodes; (A, D) float64 axes and the scale, W of a node being axes[axis] / scale; the (n,) int64 order
        of the vectors that nodes are slices of.
    """
    axes, norms = _principal_axes(vectors), norms_of(vectors)
    scale = _reach(vectors, axes) or 1.0
    nodes, order = _split_all(vectors, axes, scale, leaf_size)
    norms = norms[order]
    # Extents give way by what the float32 projections may be off, so that bounds stay lower bounds.
    slack = 2 * (vectors.shape[1] + 8) * 2.0**-24 * float(norms.max())
    nodes["low"] -= slack
    nodes["right_low"] -= slack
    nodes["high"] += slack
    nodes["left_high"] += slack
    max_norm = np.array([norms[i:j].max() for i, j in zip(nodes["start"], nodes["end"], strict=True)])
    return Nodes(**nodes, max_norm=max_norm), axes, scale, order


def norms_of(vectors: np.ndarray) -> np.ndarray:
    """(n,) float64 lengths, of some vectors at once: as doubles, all of them are twice the vectors' memory."""
    step = max(1, BLOCK // (8 * vectors.shape[1]))
    some = (vectors[i : i + step].astype(np.float64) for i in range(0, len(vectors), step))
    return np.concatenate([np.linalg.norm(one, axis=1) for one in some])


def _principal_axes(vectors: np.ndarray) -> np.ndarray:
    """(min(D, 64), D) float64: orthonormal, most variance first, from an evenly spaced sample."""
    sample = vectors[:: max(1, len(vectors) // _PCA_SAMPLE)]
    mean = sample.mean(axis=0, dtype=np.float64)
    products = np.zeros((len(mean), len(mean)))
    step = max(1, BLOCK // (8 * len(mean)))  # as doubles, all of it would be as large as many a shard
    for start in range(0, len(sample), step):
        some = sample[start : start + step] - mean
        products += some.T @ some
    _, axes = np.linalg.eigh(products)
    return np.ascontiguousarray(axes.T[::-1][:_MAX_AXES])


def _split_all(
    vectors: np.ndarray, axes: np.ndarray, scale: float, leaf_size: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Split breadth-first. Returns the arrays of `Nodes` without max_norm, and the (n,) order of vectors."""
    order = np.arange(len(vectors))
    records: list[dict[str, float]] = []
    level = [(0, len(vectors), np.full(len(axes), -np.inf), np.full(len(axes), np.inf))]
    level_ends = []
    while level:
        below, first_child = [], len(records) + len(level)
        level_ends.append(first_child)
        for start, end, low, high in level:
            split = _split(vectors, axes, order[start:end], scale) if end - start > leaf_size else None
            if split is None:
                leaf = {"child": -1, "axis": 0, "t": 0.5, "low": 0.0, "high": 0.0, "left_high": 0.0, "right_low": 0.0}
                records.append({**leaf, "start": start, "end": end})
                continue
            axis, t, right, left_high, right_low = split
            members = order[start:end]
            order[start:end] = np.concatenate([members[~right], members[right]])
            middle = end - int(right.sum())
            records.append(
                {"child": first_child + len(below), "axis": axis, "t": t, "low": low[axis], "high": high[axis]}
                | {"left_high": left_high, "right_low": right_low, "start": start, "end": end}
            )
            below.append((start, middle, low, _with(high, axis, left_high)))
            below.append((middle, end, _with(low, axis, right_low), high))
        level = below
    kinds = {"child": np.int32, "axis": np.int32, "start": np.int64, "end": np.int64}
    nodes = {name: np.array([r[name] for r in records], dtype=kinds.get(name, np.float64)) for name in records[0]}
    return nodes | {"level_ends": np.array(level_ends, dtype=np.int32)}, order


def _split(
    vectors: np.ndarray, axes: np.ndarray, members: np.ndarray, scale: float
) -> tuple[int, float, np.ndarray, float, float] | None:
    """Nearest to the median of the widest axis; None if nothing can be told apart.

    Projections are worked out for a node when it is split, on its one axis: kept for all, on all axes, they take half
    of the vectors' memory again where D is 128.

    Returns: axis, t, goes right (n,) bool, and how far those who go left and right reach towards each other.
    """
    some = members[:: max(1, len(members) // _SPREAD_SAMPLE)]  # of many, evenly spaced ones say which axis is widest
    axis = int(np.argmax(_project(vectors, some, axes).var(axis=0)))
    projected = _project(vectors, members, axes[axis : axis + 1])[:, 0]
    y = projected.astype(np.float64) / scale
    values = np.sort(y)
    steps = np.flatnonzero(np.diff(values) > 0) + 1  # the first position of each new value
    if not steps.size:
        return None
    step = steps[np.argmin(np.abs(steps - len(values) // 2))]
    t = solve_t(float(values[step - 1] + values[step]) / 2)
    right = goes_right(y, t)
    if not 0 < right.sum() < len(right):
        return None
    return axis, t, right, float(projected[~right].max()), float(projected[right].min())


def _reach(vectors: np.ndarray, axes: np.ndarray) -> float:
    """How far the furthest vector lies along any axis."""
    step = max(1, BLOCK // (4 * vectors.shape[1]))
    starts = range(0, len(vectors), step)
    return max(float(np.abs(_project(vectors, np.arange(i, min(i + step, len(vectors))), axes)).max()) for i in starts)


def _project(vectors: np.ndarray, rows: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """(n, A) float32 of some vectors along axes (A, D), gathered a block at a time."""
    step, narrow = max(1, BLOCK // (4 * vectors.shape[1])), np.ascontiguousarray(axes.T, dtype=np.float32)
    parts = [vectors[rows[i : i + step]] @ narrow for i in range(0, len(rows), step)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _with(bounds: np.ndarray, axis: int, value: float) -> np.ndarray:
    changed = bounds.copy()
    changed[axis] = value
    return changed
