"""Reconstructed places from above and from the side."""

from __future__ import annotations

import numpy as np

from retrieval.reports import scenes


def test_a_badly_placed_camera_does_not_shrink_the_scene_to_a_dot() -> None:
    rng = np.random.default_rng(0)
    points, centres = rng.normal(size=(500, 3)), 6 * rng.normal(size=(16, 3))
    points[3], centres[5] = 900, 7000
    near_points, near_cameras = scenes.in_view(points, centres)
    assert np.flatnonzero(~near_cameras).tolist() == [5]
    assert np.flatnonzero(~near_points).tolist() == [3]
