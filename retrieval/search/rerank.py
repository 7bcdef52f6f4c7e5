"""Geometric re-ranking: of the first results, those whose local features fit one plane with the query's come first.

Philbin et al., "Object retrieval with large vocabularies and fast spatial matching", CVPR 2007, sec. 4. The number of
matches that fit is evidence a person can look at: `reports.sheets` draws them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from retrieval.artifacts.collection import Jpegs
from retrieval.artifacts.folder import Folder
from retrieval.geometry import features
from retrieval.geometry.extraction import KeptFeatures
from retrieval.geometry.matching.planes import verify_plane
from retrieval.search.ranking import Neighbours

Seen: TypeAlias = bytes | features.Features
"""A stored photo: its JPEG, or local features that were kept of it."""

MIN_INLIERS = 15
MAX_FEATURES = 1024
MAX_SIDE = 1024
"""Photos are looked at no larger where somebody waits for it: the worst of this size takes 1.4 s of a core, one of
2,048 pixels 6.3, one of a camera some tens of milliseconds."""


def order_by_inliers(rows: np.ndarray, inliers: np.ndarray, min_inliers: int = MIN_INLIERS) -> np.ndarray:
    """Rows (K,) put in order: those with `min_inliers` or more first, by falling count; all others as they were.

    Args: inliers: (n,) int of the first n rows, n <= K.

    Example:
        >>> order_by_inliers(np.array([7, 8, 9, 4]), np.array([3, 20, 40])).tolist()
        [9, 8, 7, 4]
    """
    counted = np.where(inliers >= min_inliers, inliers, 0)
    order = np.argsort(-counted, kind="stable")
    return np.concatenate([rows[: len(inliers)][order], rows[len(inliers) :]])


def count_inliers(
    collection: Folder,
    asked: np.ndarray,
    found: np.ndarray,
    kept: Folder | None = None,
    max_features: int = MAX_FEATURES,
) -> np.ndarray:
    """Matches that fit one plane between each query and its first results.

    Args:
        asked: (Q, 2) int64, part and row in it of each query's photo in `collection`.
        found: (Q, top, 2) int64, the same of its results; -1 where there is none.
        kept: local features of its photos, see `geometry.extraction`; None: SIFT, taken of each photo now.

    Returns: (Q, top) int64; 0 where there is no result.
    """
    known = features_of(collection, np.concatenate([asked, found.reshape(-1, 2)]), kept, max_features)
    counts = np.zeros(found.shape[:2], dtype=np.int64)
    for query, column in zip(*np.nonzero(found[..., 0] >= 0), strict=True):
        first, second = (known[int(part), int(row)] for part, row in (asked[query], found[query, column]))
        counts[query, column] = verify_plane(first, second).num_inliers
    return counts


def features_of(
    collection: Folder, places: np.ndarray, kept: Folder | None = None, max_features: int = MAX_FEATURES
) -> Mapping[tuple[int, int], features.Features] | KeptFeatures:
    """Local features by place, as `count_inliers` takes them. Args: places: (n, 2) int64, -1 where there is none."""
    if kept is not None:
        return KeptFeatures(kept)
    wanted = [(int(part), int(row)) for part, row in np.unique(places, axis=0) if part >= 0]
    jpegs = Jpegs(collection).read(wanted)
    return {place: features.extract(jpeg, max_features=max_features) for place, jpeg in jpegs.items()}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What of two photos fits one plane. matches: (M, 4) float32: x, y in the first and x, y in the second, pixels
    of the stored photos."""

    matches: np.ndarray

    @property
    def num_inliers(self) -> int:
        return len(self.matches)


def look(jpeg: bytes) -> features.Features:
    """SIFT of a stored photo, where somebody waits for it."""
    return features.extract(jpeg, max_features=MAX_FEATURES, max_side=MAX_SIDE)


def verify_each(
    query: Seen,
    others: Iterable[Seen],
    seconds: float,
    gone: Callable[[], bool] = lambda: False,
    look: Callable[[bytes], features.Features] = look,
) -> list[Evidence | None]:
    """The query's stored photo against others, one after another, for as long as there is time.

    Args: seconds: no pair is begun later; one takes some milliseconds, and each photo that is looked at first some
        tens or hundreds, the worst two seconds (`MAX_SIDE`). gone: whether nobody waits any more; then no pair is begun
        either. look: at a photo.

    Returns: evidence of each; None for those that there was no time for.
    """
    until = time.monotonic() + seconds
    first: features.Features | None = None
    found: list[Evidence | None] = []
    for other in others:
        if gone() or time.monotonic() >= until:
            found.append(None)
            continue
        if first is None:
            first = look(query) if isinstance(query, bytes) else query
        second = look(other) if isinstance(other, bytes) else other
        pairs = verify_plane(first, second).matches
        both = first.keypoints[pairs[:, 0], :2], second.keypoints[pairs[:, 1], :2]
        found.append(Evidence(np.concatenate(both, axis=1)))
    return found


def rerank(found: Neighbours, inliers: np.ndarray, min_inliers: int = MIN_INLIERS) -> Neighbours:
    """The neighbours with their first results in order of `inliers` (Q, top); scores go with their rows."""
    rows, scores = np.empty_like(found.rows), np.empty_like(found.scores)
    for query, counts in enumerate(inliers):
        order = order_by_inliers(np.arange(found.rows.shape[1]), counts[: found.rows.shape[1]], min_inliers)
        rows[query], scores[query] = found.rows[query][order], found.scores[query][order]
    return Neighbours(scores, rows)
