"""Which local features of two photos are most likely the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval.geometry.features import Features


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """Matches of two photos that one epipolar geometry or homography explains. matches: (M, 2) int32 feature rows."""

    num_inliers: int
    matches: np.ndarray

    @classmethod
    def nothing(cls) -> Verified:
        return cls(num_inliers=0, matches=np.empty((0, 2), np.int32))


def match(a: Features, b: Features, *, max_ratio: float | None = None, both_ways: bool = True) -> np.ndarray:
    """Mutually nearest descriptors that pass Lowe's ratio test: (M, 2) int32 rows of a and b.

    With d^2 = 2 - 2 cos of unit vectors, the ratio of the distances to the nearest and the second nearest is below
    `max_ratio` (Lowe, IJCV 2004, sec. 7.1); None: what their kind is matched with.

    Args: both_ways: the test is passed from a to b and from b to a; otherwise one of the two is enough.

    Raises: ValueError for descriptors of two kinds.
    """
    if len(a.descriptors) < 2 or len(b.descriptors) < 2:
        return np.empty((0, 2), np.int32)
    if a.descriptors.dtype != b.descriptors.dtype:
        raise ValueError("Local features of two kinds have nothing in common. Describe both photos by one extractor.")
    max_ratio = a.max_ratio if max_ratio is None else max_ratio
    cosines = _unit(a.descriptors) @ _unit(b.descriptors).T
    rows = np.arange(len(cosines))
    nearest = cosines.argmax(axis=1)
    first = cosines[rows, nearest]
    rows = rows[first == cosines.max(axis=0)[nearest]]
    rows = rows[np.sort(np.unique(nearest[rows], return_index=True)[1])]  # of rows alike, the first
    columns, first = nearest[rows], first[rows]
    # Without the pairs themselves, what is left of a column or a row is its second nearest. Columns come first: a row
    # that is nobody's nearest still stands in them.
    cosines[rows, columns] = -np.inf
    back = cosines.max(axis=0)[columns]
    there = cosines[rows].max(axis=1)
    sure, sure_back = ((2 - 2 * first) < max_ratio**2 * (2 - 2 * second) for second in (there, back))
    kept = sure & sure_back if both_ways else sure | sure_back
    return np.stack([rows, columns], axis=1)[kept].astype(np.int32)


def _unit(descriptors: np.ndarray) -> np.ndarray:
    x = descriptors.astype(np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)
