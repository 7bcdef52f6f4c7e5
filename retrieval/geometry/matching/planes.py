"""Matches of two photos that one plane explains: what puts search results in order.

A two-view geometry (`two_views.verify`) ties a point to a line of the other photo, and along a whole line a wrong match
fits by chance: where most matches are wrong, as of hard pairs, chance alone reaches the threshold. A homography ties it
to a place. What it explains of a building is a facade, and that is enough to rank by: Philbin et al., CVPR 2007,
sec. 4, rank by an affine map, which has fewer numbers still. For the 3D shape nothing is lost: mapping asks for
two views.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retrieval.geometry.features import Features
from retrieval.geometry.matching.matches import Verified, match
from retrieval.geometry.settings import MIN_LINK

MAX_ERROR = 1 / 120
"""Of the second photo's longer side, between a point and where the plane takes it to: 4 pixels of 480."""

_TRIES, _SURE = 5000, 0.999


@dataclass(frozen=True, slots=True)
class _Way:
    """How matches of a kind of features are picked, and fewer than how many on one plane are chance."""

    max_ratio: float
    both_ways: bool
    least: int


# docs/decisions/local-features.md has what was tried, and how often chance gives so many.
_SIFT = _Way(0.8, both_ways=True, least=MIN_LINK)
_LEARNED = _Way(0.95, both_ways=False, least=20)


def verify_plane(a: Features, b: Features) -> Verified:
    """Match two photos and keep what one homography explains, by MAGSAC++ (Barath et al., CVPR 2020) of OpenCV, whose
    draws are the same each time. Nothing where that is no more than chance gives."""
    way = _LEARNED if a.are_learned else _SIFT
    pairs = match(a, b, max_ratio=way.max_ratio, both_ways=way.both_ways)
    if len(pairs) < way.least:
        return Verified.nothing()
    first = np.ascontiguousarray(a.keypoints[pairs[:, 0], :2])
    second = np.ascontiguousarray(b.keypoints[pairs[:, 1], :2])
    error = MAX_ERROR * max(b.width, b.height)
    _, fits = cv2.findHomography(first, second, cv2.USAC_MAGSAC, error, maxIters=_TRIES, confidence=_SURE)
    if fits is None:
        return Verified.nothing()
    kept = pairs[fits.ravel() > 0]
    return Verified(num_inliers=len(kept), matches=kept) if len(kept) >= way.least else Verified.nothing()
