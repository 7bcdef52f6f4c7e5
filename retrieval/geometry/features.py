"""Local features, and matches of two photos that fit one geometry, by COLMAP.

Where features come from is an extractor's matter (`extractors`); what is done with them is the same for all of them.
Everything is seeded and runs on one thread: the same photos give the same models, whoever computes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from retrieval.geometry.colmap import pycolmap
from retrieval.geometry.extractors.sift import sift
from retrieval.geometry.settings import MIN_LINK
from retrieval.images.native import one_photo
from retrieval.images.pixels import Pixels, decode_whole, fit

Extractor = Callable[[Pixels, int], tuple[np.ndarray, np.ndarray]]
"""(pixels, most features) -> keypoints (N, 4) float32 and descriptors (N, 128), see `extractors`."""

_FOCAL = 1.2  # prior of a photo's focal length, in long sides: COLMAP's own default

pycolmap.logging.minloglevel = 2  # errors only


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """Local features of one photo.

    keypoints: (N, 4) float32 x, y, size, angle, in pixels of the stored photo, in the extractor's order; the corner of
    the first pixel is (0, 0), as COLMAP has it.
    descriptors: (N, 128), uint8 of SIFT, float16 of a learned extractor. colours: (N, 3) uint8 RGB.
    """

    keypoints: np.ndarray
    descriptors: np.ndarray
    colours: np.ndarray
    width: int
    height: int

    @property
    def max_ratio(self) -> float:
        """Lowe's ratio of distances that its descriptors are matched with: learned ones lie nearer to each other."""
        return 0.8 if self.descriptors.dtype == np.uint8 else 0.9


NONE = Features(
    keypoints=np.empty((0, 4), np.float32),
    descriptors=np.empty((0, 128), np.uint8),
    colours=np.empty((0, 3), np.uint8),
    width=0,
    height=0,
)
"""Of a photo that nobody looks at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """Matches of two photos that one epipolar geometry or homography explains. matches: (M, 2) int32 feature rows."""

    num_inliers: int
    matches: np.ndarray


def extract(
    jpeg: bytes, *, max_features: int = 2048, max_side: int | None = None, extractor: Extractor = sift
) -> Features:
    """Local features of a stored photo; none where it shows nothing (all black, a few pixels).

    Args: max_side: a larger photo is looked at no larger than this, which bounds the time; pixels are those of the
        stored photo all the same. None: as it is stored.

    Raises: ValueError if the bytes are no JPEG.
    """
    with one_photo():
        stored = decode_whole(jpeg)
        found = _extract(stored if max_side is None else fit(stored, max_side), max_features, extractor)
    height, width = stored.shape[:2]
    if (found.height, found.width) == (height, width):
        return found
    x, y = width / found.width, height / found.height
    keypoints = found.keypoints * np.array([x, y, max(x, y), 1], np.float32)  # the last is an angle
    return dataclasses.replace(found, keypoints=keypoints, height=height, width=width)


def _extract(pixels: Pixels, max_features: int, extractor: Extractor) -> Features:
    height, width = pixels.shape[:2]
    keypoints, descriptors = NONE.keypoints, NONE.descriptors
    if min(height, width) >= 16:
        keypoints, descriptors = extractor(pixels, max_features)
    at = np.clip(keypoints[:, :2].astype(np.int64), 0, [width - 1, height - 1])
    return Features(
        keypoints=keypoints, descriptors=descriptors, colours=pixels[at[:, 1], at[:, 0]], width=width, height=height
    )


def match(a: Features, b: Features, *, max_ratio: float | None = None) -> np.ndarray:
    """Mutually nearest descriptors that pass Lowe's ratio test both ways: (M, 2) int32 rows of a and b.

    With d^2 = 2 - 2 cos of unit vectors, the ratio of the distances to the nearest and the second nearest is below
    `max_ratio` (Lowe, IJCV 2004, sec. 7.1); None: what their kind is matched with.

    Raises: ValueError for descriptors of two kinds.
    """
    if len(a.descriptors) < 2 or len(b.descriptors) < 2:
        return np.empty((0, 2), np.int32)
    if a.descriptors.dtype != b.descriptors.dtype:
        raise ValueError("Local features of two kinds have nothing in common. Describe both photos by one extractor.")
    max_ratio = a.max_ratio if max_ratio is None else max_ratio
    cosines = _unit(a.descriptors) @ _unit(b.descriptors).T
    forward, sure = _nearest(cosines, max_ratio)
    rows = np.flatnonzero(sure)
    # The way back is looked at only for the few that passed: it reads the matrix against its grain.
    backward, sure = _nearest(np.ascontiguousarray(cosines[:, forward[rows]].T), max_ratio)
    rows = rows[(backward == rows) & sure]
    return np.stack([rows, forward[rows]], axis=1).astype(np.int32)


def _unit(descriptors: np.ndarray) -> np.ndarray:
    x = descriptors.astype(np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)


def _nearest(cosines: np.ndarray, max_ratio: float) -> tuple[np.ndarray, np.ndarray]:
    best = cosines.argmax(axis=1)
    first = cosines[np.arange(len(best)), best]
    rows = np.arange(len(best))
    cosines[rows, best] = -np.inf
    second = cosines.max(axis=1)
    cosines[rows, best] = first
    return best, (2 - 2 * first) < max_ratio**2 * (2 - 2 * second)


def verify(
    a: Features, b: Features, *, max_error: float = 4.0, max_ratio: float | None = None, seed: int = 0
) -> Verified:
    """Match two photos and keep what one two-view geometry explains (LO-RANSAC, seeded).

    Args: max_error: pixels from the epipolar line, or from the point's place under a homography.
    """
    pairs = match(a, b, max_ratio=max_ratio)
    if len(pairs) < MIN_LINK:
        return Verified(num_inliers=0, matches=np.empty((0, 2), np.int32))
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


def camera_of(features: Features, camera_id: int = 1) -> pycolmap.Camera:
    long_side = max(features.width, features.height)
    return pycolmap.Camera.create_from_model_name(
        camera_id, "SIMPLE_RADIAL", _FOCAL * long_side, features.width, features.height
    )
