"""Local features of a photo.

Where they come from is an extractor's matter (`extractors`); what is done with them (`matching`, the stages) is the
same for all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from retrieval.geometry.colmap import pycolmap
from retrieval.geometry.extractors.sift import sift
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
    def are_learned(self) -> bool:
        return self.descriptors.dtype != np.uint8

    @property
    def max_ratio(self) -> float:
        """Lowe's ratio of distances that its descriptors are matched with: learned ones lie nearer to each other."""
        return 0.9 if self.are_learned else 0.8


NONE = Features(
    keypoints=np.empty((0, 4), np.float32),
    descriptors=np.empty((0, 128), np.uint8),
    colours=np.empty((0, 3), np.uint8),
    width=0,
    height=0,
)
"""Of a photo that nobody looks at."""


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


def camera_of(features: Features, camera_id: int = 1) -> pycolmap.Camera:
    long_side = max(features.width, features.height)
    return pycolmap.Camera.create_from_model_name(
        camera_id, "SIMPLE_RADIAL", _FOCAL * long_side, features.width, features.height
    )
