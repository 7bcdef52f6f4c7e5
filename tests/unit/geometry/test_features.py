"""Local features of drawn photos."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from retrieval.geometry.features import Features, camera_of, extract
from retrieval.geometry.matching.matches import match
from retrieval.geometry.matching.two_views import verify
from retrieval.images.pixels import decode_whole, encode_jpeg, resize
from tests.support.places import drawn_jpeg


def test_a_large_photo_is_looked_at_smaller_and_its_points_lie_where_they_are_stored() -> None:
    small = decode_whole(drawn_jpeg(0, 2))
    height, width = small.shape[:2]
    large = encode_jpeg(resize(small, 4 * width, 4 * height), quality=98)
    found = extract(large, max_features=400, max_side=max(width, height))
    assert (found.width, found.height) == (4 * width, 4 * height)
    whole = extract(drawn_jpeg(0, 2), max_features=400)
    matched = match(found, whole)
    assert len(matched) > 100
    moved = found.keypoints[matched[:, 0], :3] / 4 - whole.keypoints[matched[:, 1], :3]
    assert np.median(np.abs(moved)) < 0.3
    same = extract(large, max_features=50, max_side=9999)
    assert np.array_equal(extract(large, max_features=50).keypoints, same.keypoints)


def test_features_are_rootsift_with_the_colours_of_their_places(photos: dict[tuple[int, int], Features]) -> None:
    found, pixels = photos[0, 2], decode_whole(drawn_jpeg(0, 2))
    assert (found.height, found.width) == pixels.shape[:2]
    num = len(found.keypoints)
    assert found.keypoints.shape == (num, 4) and found.keypoints.dtype == np.float32
    assert found.descriptors.shape == (num, 128) and found.descriptors.dtype == np.uint8
    assert 200 < num <= 800
    norms = np.linalg.norm(found.descriptors.astype(float), axis=1)
    assert np.abs(norms - 512).max() < 12  # the root of an L1-normalised vector has L2 norm 1
    for at in range(0, num, 37):
        x, y = (int(value) for value in found.keypoints[at, :2])
        assert found.colours[at].tolist() == pixels[y, x].tolist()


@pytest.mark.parametrize("shape", [(200, 300), (3, 3), (3, 300), (15, 400)])
def test_a_photo_that_shows_nothing_has_no_features_and_no_match(
    shape: tuple[int, int], photos: dict[tuple[int, int], Features]
) -> None:
    data = io.BytesIO()
    Image.new("RGB", (shape[1], shape[0])).save(data, "JPEG")
    blank = extract(data.getvalue())
    assert len(blank.keypoints) == len(blank.descriptors) == len(blank.colours) == 0
    assert (blank.height, blank.width) == shape
    assert verify(blank, photos[0, 2]).num_inliers == 0


def test_what_is_no_photo_is_refused() -> None:
    with pytest.raises(ValueError, match="is no JPEG"):
        extract(b"nothing")


def test_a_photo_s_focal_length_is_guessed_from_its_long_side() -> None:
    for width, height in ((400, 300), (300, 400)):
        seen = Features(keypoints=np.empty(0), descriptors=np.empty(0), colours=np.empty(0), width=width, height=height)
        camera = camera_of(seen, 9)
        assert (camera.camera_id, camera.width, camera.height) == (9, width, height)
        assert camera.mean_focal_length() == pytest.approx(480)
        assert (camera.principal_point_x, camera.principal_point_y) == (width / 2, height / 2)
