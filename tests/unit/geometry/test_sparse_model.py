"""Co-observed points and change of scale equal counting every pair of images point by point."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

import numpy as np
import pytest

from retrieval.geometry import sparse_model
from retrieval.geometry.sparse_model import SparseModel, covisible_pairs


def model_of(sightings: list[tuple[int, int, float]], num: int, num_points: int) -> SparseModel:
    """A model from (image, point, scale) triples; cameras and points lie anywhere."""
    rng = np.random.default_rng(0)
    image, point, scale = zip(*sightings) if sightings else ((), (), ())
    return SparseModel(
        image_ids=[f"image-{i:03d}.jpg" for i in range(num)],
        centres=rng.normal(size=(num, 3)),
        directions=np.tile([0.0, 0.0, 1.0], (num, 1)),
        points=rng.normal(size=(num_points, 3)),
        colours=np.zeros((num_points, 3), np.uint8),
        obs_image=np.array(image, np.int64),
        obs_point=np.array(point, np.int64),
        obs_scale=np.array(scale, np.float64),
    )


def random_model(num: int = 17, num_points: int = 90, seed: int = 1) -> SparseModel:
    rng = np.random.default_rng(seed)
    sightings = [
        (i, p, float(rng.uniform(0.5, 4))) for i in range(num) for p in range(num_points) if rng.random() < 0.15
    ]
    sightings += sightings[:5]  # seen twice
    sightings += [(0, 0, -1.0), (1, 0, float("nan")), (2, 1, 0.0)]  # behind the camera
    rng.shuffle(sightings)
    return model_of([(int(i), int(p), s) for i, p, s in sightings], num, num_points)


def slow_pairs(model: SparseModel) -> dict[tuple[int, int], tuple[int, float]]:
    seen: list[dict[int, float]] = [{} for _ in model.image_ids]
    for i, p, s in zip(model.obs_image.tolist(), model.obs_point.tolist(), model.obs_scale.tolist()):
        if s > 0:
            seen[i][p] = s
    found = {}
    for i in range(len(seen)):
        for j in range(i + 1, len(seen)):
            common = sorted(set(seen[i]) & set(seen[j]))
            if common:
                change = statistics.median(max(seen[i][p] / seen[j][p], seen[j][p] / seen[i][p]) for p in common)
                found[i, j] = (len(common), change)
    return found


@pytest.mark.parametrize("block", [1, 40, 1 << 23])
def test_equal_to_counting_every_pair_of_images(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_model, "_BLOCK_PAIRS", block)
    model = random_model()
    pairs, slow = covisible_pairs(model), slow_pairs(model)
    assert list(zip(pairs.first.tolist(), pairs.second.tolist())) == sorted(slow)
    assert pairs.shared.tolist() == [slow[key][0] for key in sorted(slow)]
    assert pairs.scale_change.tolist() == pytest.approx([slow[key][1] for key in sorted(slow)])
    assert pairs.scale_change.min() >= 1


def test_a_hand_made_model() -> None:
    # a and b share points 0, 1, 2 at ratios 2, 4, 1/3; b and c share point 2; d sees its own point only.
    sightings = [(0, 0, 2.0), (1, 0, 1.0), (0, 1, 8.0), (1, 1, 2.0), (0, 2, 1.0), (1, 2, 3.0), (2, 2, 3.0), (3, 3, 1.0)]
    pairs = covisible_pairs(model_of(sightings, 4, 4))
    assert list(zip(pairs.first, pairs.second)) == [(0, 1), (0, 2), (1, 2)]
    assert pairs.shared.tolist() == [3, 1, 1]
    assert pairs.scale_change.tolist() == [3.0, 3.0, 1.0]
    assert pairs.num_points.tolist() == [3, 3, 1, 1]


def test_an_even_number_of_points_takes_the_mean_of_the_middle_two() -> None:
    sightings = [(0, p, s) for p, s in enumerate((1.0, 2.0, 4.0, 1.0))] + [(1, p, 1.0) for p in range(4)]
    assert covisible_pairs(model_of(sightings, 2, 4)).scale_change.tolist() == [1.5]


def test_models_without_a_shared_point_have_no_pair() -> None:
    for model in (model_of([], 0, 0), model_of([], 2, 1), model_of([(0, 0, 1.0), (1, 1, 1.0)], 2, 2)):
        pairs = covisible_pairs(model)
        assert len(pairs.first) == len(pairs.second) == len(pairs.shared) == len(pairs.scale_change) == 0
        assert len(pairs.num_points) == len(model.image_ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_ids": ["b", "a"]}, "sorted and unique"),
        ({"image_ids": ["a", "a"]}, "sorted and unique"),
        ({"image_ids": ["a"]}, r"centres of a model has shape \(2, 3\), expected \(1, 3\)"),
        ({"colours": np.zeros((9, 3), np.uint8)}, "colours"),
        ({"obs_point": np.array([0, 7])}, "rows 0 to 7, expected 0 to 0"),
        ({"obs_image": np.array([-1, 0])}, "obs_image holds rows -1"),
        ({"obs_scale": np.ones(3)}, "obs_scale"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(model_of([(0, 0, 1.0), (1, 0, 1.0)], 2, 1), **change)
