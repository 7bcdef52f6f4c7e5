"""Matches that one epipolar geometry or homography explains, by COLMAP: what a reconstruction is made from.

Seeded, on one thread: the same photos give the same models, whoever computes them.
"""

from __future__ import annotations

import numpy as np

from retrieval.geometry.colmap import pycolmap
from retrieval.geometry.features import Features, camera_of
from retrieval.geometry.matching.matches import Verified, match
from retrieval.geometry.settings import MIN_LINK


def verify(
    a: Features, b: Features, *, max_error: float = 4.0, max_ratio: float | None = None, seed: int = 0
) -> Verified:
    """Match two photos and keep what one two-view geometry explains (LO-RANSAC, seeded).

    Args: max_error: pixels from the epipolar line, or from the point's place under a homography.
    """
    pairs = match(a, b, max_ratio=max_ratio)
    if len(pairs) < MIN_LINK:
        return Verified.nothing()
    options = pycolmap.TwoViewGeometryOptions()
    options.min_num_inliers, options.ransac.max_error, options.ransac.random_seed = MIN_LINK, max_error, seed
    geometry = pycolmap.estimate_two_view_geometry(
        camera_of(a),
        a.keypoints[:, :2].astype(np.float64),
        camera_of(b),
        b.keypoints[:, :2].astype(np.float64),
        pairs.astype(np.uint32),
        options,
    )
    inliers = np.asarray(geometry.inlier_matches, dtype=np.int32).reshape(-1, 2)
    if geometry.config in _NO_GEOMETRY:
        inliers = inliers[:0]
    return Verified(num_inliers=len(inliers), matches=inliers)


_NO_GEOMETRY = (
    pycolmap.TwoViewGeometryConfiguration.UNDEFINED,
    pycolmap.TwoViewGeometryConfiguration.DEGENERATE,
    pycolmap.TwoViewGeometryConfiguration.WATERMARK,
)
