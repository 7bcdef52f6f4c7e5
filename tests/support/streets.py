"""A street as a sparse model, and parts of it as they are mapped by themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np

from retrieval.geometry.sparse_model import SparseModel, without


def street(num: int = 12, each: int = 40) -> SparseModel:
    """Photos along a street: the points before each are seen by it and by the two on either side."""
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform((2 * n, 8, 0), (2 * n + 2, 12, 5), (each, 3)) for n in range(num)])
    seen = [(n, p) for n in range(num) for p in range(len(points)) if abs(p // each - n) <= 2]
    image, point = np.array(seen).T
    centres = np.array([(2.0 * n + 1, 0, 1.5) for n in range(num)])
    return SparseModel(
        image_ids=[f"{n:02d}.jpg" for n in range(num)],
        centres=centres,
        directions=np.tile([0.0, 1, 0], (num, 1)),
        points=points,
        colours=rng.integers(0, 255, points.shape).astype(np.uint8),
        obs_image=image,
        obs_point=point,
        obs_scale=500 / (points[point] - centres[image])[:, 1],
        obs_feature=1000 + point,
    )


def part_of(model: SparseModel, photos: Collection[int], seed: int, noise: float = 0.0) -> SparseModel:
    """As it is mapped by itself: of another orientation, unit and place."""
    own = without(model, {name for n, name in enumerate(model.image_ids) if n not in photos})
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    scale, shift = float(rng.uniform(0.2, 5)), rng.uniform(-9, 9, 3)
    points = scale * (own.points + rng.normal(0, noise, own.points.shape)) @ turn.T + shift
    return dataclasses.replace(
        own,
        centres=scale * own.centres @ turn.T + shift,
        directions=own.directions @ turn.T,
        points=points,
        obs_scale=own.obs_scale / scale,
    )
