"""SIFT is what COLMAP finds when asked for so many, as RootSIFT."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.data.demo.places import building, photograph
from retrieval.geometry.colmap import pycolmap
from retrieval.geometry.extractors.sift import sift
from retrieval.images.pixels import grey
from tests.support.places import SMALL

PHOTO = photograph(building(7, 0), SMALL, 0, 2)


@pytest.mark.parametrize("num", [50, 300])
def test_it_is_rootsift_of_what_colmap_finds_when_asked_for_so_many(num: int) -> None:
    """COLMAP lists them octave by octave: asked for more, and cut, it would give other ones."""
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu, options.sift.max_num_features = False, num
    options.sift.normalization = pycolmap.Normalization.L2
    colmap = pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)
    points, data = colmap.extract_from_uint8_array(grey(PHOTO))
    keypoints, descriptors = sift(PHOTO, num)
    assert len(keypoints) == len(descriptors) == num <= len(points)
    assert keypoints.dtype == np.float32 and descriptors.dtype == np.uint8
    assert np.array_equal(keypoints, pycolmap.keypoints_to_matrix(points)[:num, :4])
    plain = np.asarray(data.data, np.float64)[:num]
    root = 512 * np.sqrt(plain / plain.sum(axis=1, keepdims=True))
    assert np.abs(root - descriptors).mean() < 1 < 5 < np.abs(plain - descriptors).mean()


def test_where_nothing_is_seen_nothing_is_described() -> None:
    keypoints, descriptors = sift(np.zeros((64, 48, 3), np.uint8), 9)
    assert (keypoints.shape, keypoints.dtype) == ((0, 4), np.float32)
    assert (descriptors.shape, descriptors.dtype) == ((0, 128), np.uint8)
