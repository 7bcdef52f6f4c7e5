"""SIFT by COLMAP, on one thread (Lowe, IJCV 2004), its descriptors as RootSIFT (Arandjelovic and Zisserman, 2012)."""

from __future__ import annotations

import functools

import numpy as np

from retrieval.geometry.colmap import pycolmap
from retrieval.images.pixels import Pixels, grey


def sift(pixels: Pixels, max_features: int) -> tuple[np.ndarray, np.ndarray]:
    """x, y, scale and orientation (N, 4) float32, in COLMAP's order; and (N, 128) uint8, square roots of L1-normalised
    SIFT times 512."""
    points, found = _sift(max_features).extract_from_uint8_array(grey(pixels))
    if not len(points):
        return np.empty((0, 4), np.float32), np.empty((0, 128), np.uint8)
    # COLMAP keeps whole octaves, so it may give some more than was asked for.
    keypoints = np.asarray(pycolmap.keypoints_to_matrix(points), np.float32)[:max_features, :4]
    return keypoints, np.asarray(found.data, np.uint8)[:max_features]


@functools.lru_cache(maxsize=2)
def _sift(max_features: int) -> pycolmap.FeatureExtractor:
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu, options.num_threads = False, 1
    options.sift.max_num_features = max_features
    options.sift.normalization = pycolmap.Normalization.L1_ROOT
    return pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)
