"""Two photos of a drawn building fit one geometry, two buildings do not; what COLMAP is asked."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from retrieval.geometry.colmap import pycolmap
from retrieval.geometry.features import Features
from retrieval.geometry.matching import two_views
from retrieval.geometry.matching.matches import match
from retrieval.geometry.matching.two_views import verify
from retrieval.geometry.settings import MIN_LINK
from tests.support.local import described


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
    assert getattr(pycolmap.TwoViewGeometryConfiguration, kind) in two_views._NO_GEOMETRY
