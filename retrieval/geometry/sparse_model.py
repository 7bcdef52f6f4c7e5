"""Which images of a reconstruction see the same 3D points, how many of them, and at what change of scale.

Counting follows each point's track, so time and memory grow with the pairs that do share points, never with N x N.

Shapes: N registered images, P points, O observations (one image sees one point), E pairs of images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from retrieval.artifacts.folder import Folder

_BLOCK_PAIRS = 1 << 23  # pairs of observations held at once: about 400 MB while they are sorted


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseModel:
    """One reconstruction: cameras, coloured points, and which image sees which point.

    image_ids: the N registered images, sorted.
    centres, directions: (N, 3) float64, camera centres and unit viewing directions in the model's own frame and unit.
    points, colours: (P, 3) float64 and (P, 3) uint8 RGB.
    obs_image, obs_point: (O,) int64 rows into image_ids and into points.
    obs_scale: (O,) float64, focal length / depth: pixels per unit of length at that point in that image. Not positive
        or not finite (a point behind its camera): the observation is not counted.
    obs_feature: (O,) int64, which feature of the image, by which models of one image are joined; None: not known.
    """

    image_ids: list[str]
    centres: np.ndarray
    directions: np.ndarray
    points: np.ndarray
    colours: np.ndarray
    obs_image: np.ndarray
    obs_point: np.ndarray
    obs_scale: np.ndarray
    obs_feature: np.ndarray | None = None

    def __post_init__(self) -> None:
        num, points, seen = len(self.image_ids), len(self.points), len(self.obs_image)
        shapes = {
            "centres": (self.centres, (num, 3)),
            "directions": (self.directions, (num, 3)),
            "points": (self.points, (points, 3)),
            "colours": (self.colours, (points, 3)),
            "obs_image": (self.obs_image, (seen,)),
            "obs_point": (self.obs_point, (seen,)),
            "obs_scale": (self.obs_scale, (seen,)),
        }
        if self.obs_feature is not None:
            shapes["obs_feature"] = (self.obs_feature, (seen,))
        for name, (array, shape) in shapes.items():
            if array.shape != shape:
                raise ValueError(f"{name} of a model has shape {array.shape}, expected {shape}.")
        if any(a >= b for a, b in zip(self.image_ids, self.image_ids[1:])):
            raise ValueError("image_ids of a model must be sorted and unique; sort them and renumber obs_image.")
        for name, rows, end in (("obs_image", self.obs_image, num), ("obs_point", self.obs_point, points)):
            if seen and (rows.min() < 0 or rows.max() >= end):
                raise ValueError(f"{name} holds rows {rows.min()} to {rows.max()}, expected 0 to {end - 1}.")


def without(model: SparseModel, image_ids: set[str]) -> SparseModel:
    """The model without some images, and without the points that fewer than two of the others see."""
    rows = np.array([row for row, name in enumerate(model.image_ids) if name not in image_ids], dtype=np.int64)
    if len(rows) == len(model.image_ids):
        return model
    new_row = np.full(len(model.image_ids), -1)
    new_row[rows] = np.arange(len(rows))
    seen = new_row[model.obs_image] >= 0
    often = np.bincount(model.obs_point[seen], minlength=len(model.points)) >= 2
    seen &= often[model.obs_point]
    new_point = np.cumsum(often) - 1
    return SparseModel(
        image_ids=[model.image_ids[row] for row in rows],
        centres=model.centres[rows],
        directions=model.directions[rows],
        points=model.points[often],
        colours=model.colours[often],
        obs_image=new_row[model.obs_image[seen]],
        obs_point=new_point[model.obs_point[seen]],
        obs_scale=model.obs_scale[seen],
        obs_feature=None if model.obs_feature is None else model.obs_feature[seen],
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Covisibility:
    """The pairs of images that share at least one point, in order of (first, second).

    first, second: (E,) int64 rows into image_ids, first < second.
    shared: (E,) int64 >= 1, number of points both see.
    scale_change: (E,) float64 >= 1, median over the shared points of max(s_i / s_j, s_j / s_i).
    num_points: (N,) int64, points each image sees.
    """

    first: np.ndarray
    second: np.ndarray
    shared: np.ndarray
    scale_change: np.ndarray
    num_points: np.ndarray


def covisible_pairs(model: SparseModel) -> Covisibility:
    """Count the co-observed points of every pair of images of a model, and measure their change of scale.

    A point that an image sees twice (COLMAP's tracks may say so) counts once.

    Example: one point seen by two cameras at depths 2 and 3 with equal focal lengths
        >>> model = SparseModel(
        ...     image_ids=["a", "b"], centres=np.zeros((2, 3)), directions=np.zeros((2, 3)), points=np.zeros((1, 3)),
        ...     colours=np.zeros((1, 3), np.uint8), obs_image=np.array([0, 1]), obs_point=np.array([0, 0]),
        ...     obs_scale=np.array([1 / 2, 1 / 3]),
        ... )
        >>> pairs = covisible_pairs(model)
        >>> pairs.shared.tolist(), pairs.scale_change.round(3).tolist()
        ([1], [1.5])
    """
    image, point, scale = _observations(model)
    num = len(model.image_ids)
    found = [_reduce(*pairs) for pairs in _pair_blocks(image, point, scale, num)]
    keys, shared, change = (np.concatenate(parts) for parts in zip(*found)) if found else _NOTHING
    return Covisibility(
        first=keys // max(num, 1),
        second=keys % max(num, 1),
        shared=shared,
        scale_change=change,
        num_points=np.bincount(image, minlength=num),
    )


_NOTHING = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


def _observations(model: SparseModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The countable observations as (image, point, scale), sorted by point, then image, each (image, point) once."""
    good = np.flatnonzero(np.isfinite(model.obs_scale) & (model.obs_scale > 0))
    order = good[np.lexsort((model.obs_image[good], model.obs_point[good]))]
    image, point, scale = model.obs_image[order], model.obs_point[order], model.obs_scale[order]
    new = np.ones(len(order), bool)
    new[1:] = (image[1:] != image[:-1]) | (point[1:] != point[:-1])
    return image[new], point[new], scale[new]


def _pair_blocks(
    image: np.ndarray, point: np.ndarray, scale: np.ndarray, num: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of observations of one point as (key = first * num + second, ratio of scales), by blocks of `first`.

    A block holds all pairs of its images, as a median needs, and ends after _BLOCK_PAIRS of them or one image.
    """
    track_end = np.searchsorted(point, point, side="right")
    later = track_end - np.arange(len(point)) - 1  # observations of the same point by images that come after
    by_image = np.argsort(image, kind="stable")
    total = np.concatenate([[0], np.cumsum(later[by_image])])
    begins = np.searchsorted(image[by_image], np.arange(num + 1))
    done = 0
    while done < num:
        limit = total[begins[done]] + _BLOCK_PAIRS
        end = max(done + 1, int(np.searchsorted(total[begins], limit, side="right")) - 1)
        mine = by_image[begins[done] : begins[end]]
        one = np.repeat(mine, later[mine])
        if len(one):
            starts = np.cumsum(later[mine]) - later[mine]
            other = one + 1 + np.arange(len(one)) - np.repeat(starts, later[mine])
            ratio = scale[one] / scale[other]
            yield image[one] * num + image[other], np.maximum(ratio, 1 / ratio)
        done = end


def _reduce(keys: np.ndarray, ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(unique keys ascending, count of each, median ratio of each)."""
    order = np.lexsort((ratios, keys))
    keys, ratios = keys[order], ratios[order]
    begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    counts = np.diff(np.append(begins, len(keys)))
    median = (ratios[begins + (counts - 1) // 2] + ratios[begins + counts // 2]) / 2
    return keys[begins], counts, median


_KINDS = ("cameras", "points", "observations")


def write_model(folder: Folder, number: int, model: SparseModel) -> None:
    """Store a model as models/{cameras,points,observations}-<number>.parquet."""
    cameras = {"image_id": model.image_ids}
    cameras |= {f"centre_{axis}": model.centres[:, at] for at, axis in enumerate("xyz")}
    cameras |= {f"direction_{axis}": model.directions[:, at] for at, axis in enumerate("xyz")}
    points = {axis: model.points[:, at] for at, axis in enumerate("xyz")}
    points |= {colour: model.colours[:, at] for at, colour in enumerate(("red", "green", "blue"))}
    seen = {"image": model.obs_image, "point": model.obs_point, "scale": model.obs_scale}
    seen |= {} if model.obs_feature is None else {"feature": model.obs_feature}
    for kind, columns in zip(_KINDS, (cameras, points, seen), strict=True):
        folder.write_table(_name(kind, number), pa.table(columns), about={})


def read_model(folder: Folder, number: int) -> SparseModel:
    """A model that `write_model` stored."""
    cameras, points, seen = (folder.read_table(_name(kind, number)) for kind in _KINDS)

    def columns(table: pa.Table, names: tuple[str, ...]) -> np.ndarray:
        return np.stack([table[name].to_numpy() for name in names], axis=1)

    return SparseModel(
        image_ids=cameras["image_id"].to_pylist(),
        centres=columns(cameras, ("centre_x", "centre_y", "centre_z")),
        directions=columns(cameras, ("direction_x", "direction_y", "direction_z")),
        points=columns(points, ("x", "y", "z")),
        colours=columns(points, ("red", "green", "blue")),
        obs_image=seen["image"].to_numpy(),
        obs_point=seen["point"].to_numpy(),
        obs_scale=seen["scale"].to_numpy(),
        obs_feature=seen["feature"].to_numpy() if "feature" in seen.column_names else None,
    )


def _name(kind: str, number: int) -> str:
    return f"models/{kind}-{number:05d}.parquet"
