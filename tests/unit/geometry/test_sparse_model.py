"""Co-observed points and change of scale equal counting point by point; models are stored and cut whole."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.geometry import sparse_model
from retrieval.geometry.sparse_model import SparseModel, covisible_pairs, read_model, without, write_model


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


@pytest.mark.parametrize("block", [1, 40, 200])
def test_no_more_pairs_are_held_at_once_than_a_block_or_those_of_one_image(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_model, "_BLOCK_PAIRS", block)
    model = random_model()
    held = [keys // 17 for keys, _ in sparse_model._pair_blocks(*sparse_model._observations(model), 17)]
    assert all(len(first) <= block or len(set(first)) == 1 for first in held)
    images = [set(first.tolist()) for first in held]
    assert sum(len(own) for own in images) == len(set().union(*images))  # a median needs all pairs of an image at once
    assert block == 1 or len(held) < 17


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
        ({"obs_point": np.array([0, 1])}, "rows 0 to 1, expected 0 to 0"),
        ({"obs_image": np.array([-1, 0])}, "obs_image holds rows -1"),
        ({"obs_image": np.array([2, 0])}, "obs_image holds rows 0 to 2, expected 0 to 1"),
        ({"obs_scale": np.ones(3)}, "obs_scale"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(model_of([(0, 0, 1.0), (1, 0, 1.0)], 2, 1), **change)


def test_the_first_sighting_counts_where_an_image_sees_a_point_twice() -> None:
    pairs = covisible_pairs(model_of([(0, 0, 6.0), (0, 0, 1.0), (1, 0, 2.0)], 2, 1))
    assert (pairs.shared.tolist(), pairs.scale_change.tolist()) == ([1], [3.0])
    assert pairs.num_points.tolist() == [1, 1]


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_what_lies_behind_a_camera_is_not_seen(scale: float) -> None:
    pairs = covisible_pairs(model_of([(0, 0, scale), (1, 0, 2.0), (0, 1, 1.0), (1, 1, 1.0)], 2, 2))
    assert (pairs.shared.tolist(), pairs.scale_change.tolist()) == ([1], [1.0])
    assert pairs.num_points.tolist() == [1, 2]


def coloured(model: SparseModel) -> SparseModel:
    """No two numbers alike, so that none takes another's place unseen."""
    rng = np.random.default_rng(3)
    colours = rng.integers(0, 256, (len(model.points), 3)).astype(np.uint8)
    directions = rng.normal(size=(len(model.image_ids), 3))
    return dataclasses.replace(model, colours=colours, directions=directions)


def test_a_model_comes_back_from_storage_under_its_number(tmp_path: Path) -> None:
    folder, models = Folder.of(tmp_path), [coloured(random_model(seed=seed)) for seed in (1, 2)]
    for number, model in enumerate(models):
        write_model(folder, number, model)
    for number, model in enumerate(models):
        again = read_model(folder, number)
        assert again.image_ids == model.image_ids
        for name in ("centres", "directions", "points", "colours", "obs_image", "obs_point", "obs_scale"):
            there, here = getattr(again, name), getattr(model, name)
            assert there.dtype == here.dtype and np.array_equal(there, here, equal_nan=name == "obs_scale"), name


def test_a_model_without_some_images_keeps_what_two_others_see() -> None:
    """Of three photos and four points: without a, point 1 is seen by b alone, and point 2 by nobody."""
    sightings = [(0, 0, 1.0), (1, 0, 2.0), (2, 0, 3.0), (0, 1, 4.0), (1, 1, 5.0), (0, 2, 6.0), (1, 3, 7.0), (2, 3, 8.0)]
    model = coloured(model_of(sightings, 3, 4))
    left = without(model, {model.image_ids[0], "unknown"})
    assert left.image_ids == model.image_ids[1:]
    assert np.array_equal(left.points, model.points[[0, 3]]) and np.array_equal(left.colours, model.colours[[0, 3]])
    assert np.array_equal(left.centres, model.centres[1:]) and np.array_equal(left.directions, model.directions[1:])
    assert list(zip(left.obs_image, left.obs_point, left.obs_scale)) == [(0, 0, 2), (1, 0, 3), (0, 1, 7), (1, 1, 8)]
    assert without(model, {"unknown"}) is model
    assert without(model, set(model.image_ids)).image_ids == []


def test_the_pairs_of_a_model_without_an_image_are_the_others() -> None:
    model = random_model()
    gone = {model.image_ids[number] for number in (0, 5, 16)}
    kept = [number for number in range(17) if model.image_ids[number] not in gone]
    slow = {(i, j): value for (i, j), value in slow_pairs(model).items() if i in kept and j in kept}
    left = covisible_pairs(without(model, gone))
    found = dict(zip(zip(left.first.tolist(), left.second.tolist()), left.shared.tolist()))
    assert found == {(kept.index(i), kept.index(j)): num for (i, j), (num, _) in slow.items()}
