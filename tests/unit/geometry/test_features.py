"""Local features of drawn photos, and their matches against slow definitions."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from retrieval.data.demo.places import building, photograph
from retrieval.geometry import features
from retrieval.geometry.features import Features, camera_of, extract, match, pycolmap, verify
from retrieval.geometry.settings import MIN_LINK
from retrieval.images.pixels import decode_whole, encode_jpeg, resize
from tests.support.places import SMALL


def jpeg(place: int, number: int) -> bytes:
    return encode_jpeg(photograph(building(7, place), SMALL, place, number))


@pytest.fixture(scope="module")
def photos() -> dict[tuple[int, int], Features]:
    """Two photos of one building, one of another."""
    return {key: extract(jpeg(*key), max_features=800) for key in ((0, 2), (0, 3), (1, 3))}


def described(descriptors: np.ndarray) -> Features:
    """Features that lie anywhere."""
    rng = np.random.default_rng(5)
    keypoints = rng.uniform(0, 300, (len(descriptors), 4)).astype(np.float32)
    colours = np.zeros((len(descriptors), 3), np.uint8)
    return Features(keypoints=keypoints, descriptors=descriptors, colours=colours, width=300, height=300)


def test_a_large_photo_is_looked_at_smaller_and_its_points_lie_where_they_are_stored() -> None:
    small = decode_whole(jpeg(0, 2))
    height, width = small.shape[:2]
    large = encode_jpeg(resize(small, 4 * width, 4 * height), quality=98)
    found = extract(large, max_features=400, max_side=max(width, height))
    assert (found.width, found.height) == (4 * width, 4 * height)
    whole = extract(jpeg(0, 2), max_features=400)
    matched = match(found, whole)
    assert len(matched) > 100
    moved = found.keypoints[matched[:, 0], :3] / 4 - whole.keypoints[matched[:, 1], :3]
    assert np.median(np.abs(moved)) < 0.3
    same = extract(large, max_features=50, max_side=9999)
    assert np.array_equal(extract(large, max_features=50).keypoints, same.keypoints)


def test_features_are_rootsift_with_the_colours_of_their_places(photos: dict[tuple[int, int], Features]) -> None:
    found, pixels = photos[0, 2], decode_whole(jpeg(0, 2))
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


def test_two_photos_of_a_building_fit_one_geometry_and_two_buildings_do_not(
    photos: dict[tuple[int, int], Features],
) -> None:
    a, b = photos[0, 2], photos[0, 3]
    same, other = verify(a, b), verify(a, photos[1, 3])
    assert same.num_inliers == len(same.matches) > 40 > 15 > other.num_inliers
    assert verify(a, b).matches.tolist() == same.matches.tolist()
    tried = {tuple(pair) for pair in match(a, b).tolist()}
    assert {tuple(pair) for pair in same.matches.tolist()} <= tried
    assert same.matches.dtype == np.int32
    assert verify(a, b, max_error=0.3).num_inliers < same.num_inliers
    assert len(match(a, b, max_ratio=0.6)) < len(tried)
    assert verify(a, b, max_ratio=0.6).num_inliers <= len(match(a, b, max_ratio=0.6))


def slow_match(a: np.ndarray, b: np.ndarray, max_ratio: float) -> list[list[int]]:
    x, y = (own.astype(np.float64) / np.linalg.norm(own.astype(np.float64), axis=1)[:, None] for own in (a, b))
    apart = np.linalg.norm(x[:, None, :] - y[None, :, :], axis=2)
    found = []
    for row in range(len(x)):
        one, two = np.argsort(apart[row])[:2]
        back, second = np.argsort(apart[:, one])[:2]
        nearest = apart[row, one]
        if back == row and nearest < max_ratio * apart[row, two] and nearest < max_ratio * apart[second, one]:
            found.append([row, int(one)])
    return found


@pytest.mark.parametrize("max_ratio", [0.6, 0.8, 0.95])
def test_matching_equals_the_slow_definition(max_ratio: float) -> None:
    """Some of b are a's, more or less spoilt; some are twice in a or in b: those are nobody's."""
    rng = np.random.default_rng(2)
    a = rng.integers(0, 90, (60, 128))
    spoilt = a[rng.permutation(60)[:45]] + rng.integers(-20, 20, (45, 128)) * rng.uniform(0, 4, (45, 1))
    b = np.concatenate([spoilt, spoilt[:6] + rng.integers(-3, 4, (6, 128)), rng.integers(0, 90, (12, 128))])
    a = np.concatenate([a, a[:9] + rng.integers(-3, 4, (9, 128))])
    a, b = (np.clip(own, 0, 255).astype(np.uint8) for own in (a, b))
    found = match(described(a), described(b), max_ratio=max_ratio)
    assert found.dtype == np.int32
    assert found.tolist() == slow_match(a, b, max_ratio)
    assert len(found) > 10


def test_real_descriptors_match_as_the_slow_definition_says(photos: dict[tuple[int, int], Features]) -> None:
    a, b = (photos[key].descriptors[:250] for key in ((0, 2), (0, 3)))
    assert match(described(a), described(b)).tolist() == slow_match(a, b, 0.8) != []


@pytest.mark.parametrize("num", [0, 1])
def test_one_feature_has_no_second_nearest_and_matches_nothing(num: int) -> None:
    many = described(np.random.default_rng(0).integers(0, 255, (9, 128)).astype(np.uint8))
    few = described(many.descriptors[:num])
    assert match(few, many).shape == match(many, few).shape == (0, 2)


def test_fewer_matches_than_chance_gives_are_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """COLMAP is not even asked for eleven; for twelve it is, with the seed and the limits."""
    a = described(np.random.default_rng(0).integers(0, 255, (MIN_LINK, 128)).astype(np.uint8))
    asked = []

    def estimate(*args: object) -> SimpleNamespace:
        asked.append(args)
        kinds = pycolmap.TwoViewGeometryConfiguration
        return SimpleNamespace(inlier_matches=args[4], config=kinds.CALIBRATED if len(asked) == 1 else kinds.WATERMARK)

    monkeypatch.setattr(pycolmap, "estimate_two_view_geometry", estimate)
    assert verify(described(a.descriptors[:-1]), described(a.descriptors[:-1])).num_inliers == 0 and not asked
    done = verify(a, a, max_error=2.5, seed=4)
    assert done.num_inliers == MIN_LINK and done.matches.tolist() == [[row, row] for row in range(MIN_LINK)]
    options = asked[0][5]
    assert (options.min_num_inliers, options.ransac.max_error, options.ransac.random_seed) == (MIN_LINK, 2.5, 4)
    assert np.array_equal(asked[0][1], a.keypoints[:, :2])
    assert verify(a, a).num_inliers == 0 and verify(a, a).matches.shape == (0, 2)  # a mark that all photos bear


@pytest.mark.parametrize(
    "kind",
    ["UNDEFINED", "DEGENERATE", "WATERMARK"],
)
def test_what_is_no_geometry_is_no_link(kind: str) -> None:
    assert getattr(pycolmap.TwoViewGeometryConfiguration, kind) in features._NO_GEOMETRY


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
