"""What one plane explains of two photos: points that a known homography moved, and points that chance put there."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.geometry.features import Features
from retrieval.geometry.matching import planes
from retrieval.geometry.matching.matches import match
from retrieval.geometry.matching.planes import verify_plane
from retrieval.geometry.settings import MIN_LINK
from tests.support.local import blank_features

TURNED = np.array([[0.9, -0.2, 30.0], [0.25, 1.1, -12.0], [2e-4, -1e-4, 1.0]])


def features(points: np.ndarray, descriptors: np.ndarray) -> Features:
    keypoints = np.zeros((len(points), 4), np.float32)
    keypoints[:, :2] = points
    return Features(
        keypoints=keypoints,
        descriptors=descriptors,
        colours=np.zeros((len(points), 3), np.uint8),
        width=640,
        height=480,
    )


def moved(points: np.ndarray) -> np.ndarray:
    there = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ TURNED.T
    return there[:, :2] / there[:, 2:]


def pair(num: int, wrong: int, *, learned: bool = False, seed: int = 0) -> tuple[Features, Features]:
    """`num` points on a plane that the second photo sees elsewhere, and so many more that are anywhere there."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([0, 0], [640, 480], (num + wrong, 2))
    there = np.concatenate([moved(points[:num]) + rng.normal(0, 0.5, (num, 2)), rng.uniform(0, 480, (wrong, 2))])
    descriptors = rng.integers(0, 255, (num + wrong, 128))
    descriptors = (descriptors / 255).astype(np.float16) if learned else descriptors.astype(np.uint8)
    return features(points, descriptors), features(there, descriptors)


@pytest.mark.parametrize("learned", [False, True])
def test_what_lies_on_the_plane_is_kept_and_nothing_else(learned: bool) -> None:
    a, b = pair(60, 90, learned=learned)
    found = verify_plane(a, b)
    rows = found.matches
    assert found.num_inliers == len(rows) and rows.dtype == np.int32 and (rows[:, 0] == rows[:, 1]).all()
    off = np.linalg.norm(moved(a.keypoints[rows[:, 0], :2]) - b.keypoints[rows[:, 1], :2], axis=1)
    assert off.max() < 8
    assert len(set(rows[:, 0].tolist()) & set(range(60))) >= 58 and len(rows) <= 62
    assert verify_plane(a, b).matches.tolist() == rows.tolist(), "the same draws each time"


def test_chance_stays_below_what_moves_a_result() -> None:
    """A hundred matches, all wrong, ten times: nothing is said of them. Of learned ones it takes more."""
    assert {verify_plane(*pair(0, 100, seed=seed)).num_inliers for seed in range(10)} == {0}
    for learned, least in ((False, MIN_LINK), (True, 20)):
        assert verify_plane(*pair(least + 3, 30, learned=learned)).num_inliers >= least
        few = verify_plane(*pair(least - 1, 0, learned=learned))
        assert few.num_inliers == 0 and few.matches.shape == (0, 2)
        assert verify_plane(*pair(least - 3, 30, learned=learned)).num_inliers == 0


def test_a_learned_match_may_pass_the_test_one_way_and_one_of_sift_may_not() -> None:
    """Each point of b has a neighbour nearly as near to a's: from a to b the test fails, from b to a it is passed."""
    rng = np.random.default_rng(3)
    base = rng.normal(size=(40, 128))
    near = base + 0.10 * rng.normal(size=base.shape)
    points = rng.uniform(0, 480, (40, 2))
    for learned, both, one in ((True, 0, 40), (False, 0, 40)):
        x, y = base, np.concatenate([base + 0.095 * rng.normal(size=base.shape), near])
        x, y = (own / np.linalg.norm(own, axis=1, keepdims=True) for own in (x, y))
        if learned:
            x, y = x.astype(np.float16), y.astype(np.float16)
        else:
            x, y = (np.clip(128 + 512 * own, 0, 255).astype(np.uint8) for own in (x, y))
        a, b = features(points, x), features(np.concatenate([moved(points), points + 100]), y)
        assert len(match(a, b, max_ratio=0.8)) <= both + 4
        assert len(match(a, b, max_ratio=0.8, both_ways=False)) >= one - 4
        assert len(match(b, a, max_ratio=0.8, both_ways=False)) == len(match(a, b, max_ratio=0.8, both_ways=False))
        assert (verify_plane(a, b).num_inliers > 12) == learned


def test_few_matches_and_points_all_in_one_place_are_no_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify_plane(blank_features(50), blank_features(50)).num_inliers == 0
    a, b = pair(2 * MIN_LINK, 0)
    assert verify_plane(a, b).num_inliers > MIN_LINK
    monkeypatch.setattr(planes.cv2, "findHomography", lambda *_, **__: (None, None))
    assert verify_plane(a, b).matches.shape == (0, 2)
    monkeypatch.delattr(planes.cv2, "findHomography")
    assert verify_plane(*pair(MIN_LINK - 1, 0)).num_inliers == 0, "it is not even asked"
