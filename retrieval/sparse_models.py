"""Reconstructed models on storage: three tables each, cameras, points and observations."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from retrieval.artifacts import Folder
from retrieval.covisibility import SparseModel

_KINDS = ("cameras", "points", "observations")


def write_model(folder: Folder, number: int, model: SparseModel) -> None:
    """Store a model as models/{cameras,points,observations}-<number>.parquet."""
    cameras = {"image_id": model.image_ids}
    cameras |= {f"centre_{axis}": model.centres[:, at] for at, axis in enumerate("xyz")}
    cameras |= {f"direction_{axis}": model.directions[:, at] for at, axis in enumerate("xyz")}
    points = {axis: model.points[:, at] for at, axis in enumerate("xyz")}
    points |= {colour: model.colours[:, at] for at, colour in enumerate(("red", "green", "blue"))}
    seen = {"image": model.obs_image, "point": model.obs_point, "scale": model.obs_scale}
    for kind, columns in zip(_KINDS, (cameras, points, seen), strict=True):
        folder.write_table(_name(kind, number), pa.table(columns))


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
    )


def _name(kind: str, number: int) -> str:
    return f"models/{kind}-{number:05d}.parquet"
