"""Structure from motion: linked photos -> models with cameras and points, by COLMAP."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.geometry.colmap import pycolmap
from retrieval.geometry.features import Features, camera_of
from retrieval.geometry.settings import MIN_LINK
from retrieval.geometry.sparse_model import SparseModel
from retrieval.images.native import one_photo, strike

Link = tuple[str, str, np.ndarray]
"""Two image_ids and the (M, 2) rows of their features that match."""


def map_images(features: Mapping[str, Features], links: Sequence[Link], *, min_images: int = 3) -> list[SparseModel]:
    """Incremental mapping of one group of linked photos: the models found, the largest first; none where none holds.

    Args:
        features: of every photo of the group. links: verified pairs of them.
    """
    names = sorted(features)
    with one_photo(len(names)), tempfile.TemporaryDirectory() as temp:
        path = Path(temp) / "database.db"
        with pycolmap.Database.open(path) as database:
            ids = {name: _write_image(database, number, name, features[name]) for number, name in enumerate(names, 1)}
            for a, b, matches in links:
                _write_link(database, (ids[a], features[a]), (ids[b], features[b]), matches)
        models: list[SparseModel] = []
        for begin in _BEGINNINGS:
            folder = Path(temp) / f"models-{begin.max_error:g}"
            folder.mkdir()
            found = pycolmap.incremental_mapping(path, Path(temp), folder, _mapping_options(begin, min_images))
            again = [_sparse(model, features) for model in found.values()]
            models = max(models, [model for model in again if len(model.image_ids) >= min_images], key=_num_images)
            if 2 * _num_images(models) >= len(names):
                break
    return sorted(models, key=lambda model: (-len(model.image_ids), model.image_ids))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Beginning:
    """What the first two photos of a model must satisfy: pixels of error, degrees between rays, forward motion."""

    max_error: float
    min_angle: float
    max_forward: float


# COLMAP's own thresholds (100 matches at 16 degrees to begin with) are for large, sharp photos of known focal length.
# Where the first leave out most photos, as of a walk down a street, the second begin from what there is.
_BEGINNINGS = (
    _Beginning(max_error=4.0, min_angle=8.0, max_forward=0.95),
    _Beginning(max_error=8.0, min_angle=4.0, max_forward=1.0),
)


def _mapping_options(begin: _Beginning, min_images: int) -> pycolmap.IncrementalPipelineOptions:
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed, options.extract_colors = 1, 0, False
    options.min_model_size, options.min_num_matches = min_images, MIN_LINK
    mapper = options.mapper
    mapper.init_min_num_inliers, mapper.abs_pose_min_num_inliers = 40, 20
    mapper.init_max_error, mapper.init_min_tri_angle = begin.max_error, begin.min_angle
    mapper.init_max_forward_motion = begin.max_forward
    return options


def _num_images(models: Sequence[SparseModel]) -> int:
    return len({name for model in models for name in model.image_ids})


def _write_image(database: pycolmap.Database, number: int, name: str, features: Features) -> int:
    strike(name.encode())
    camera = camera_of(features, number)
    database.write_camera(camera, use_camera_id=True)
    rig = pycolmap.Rig()
    rig.rig_id = number
    rig.add_ref_sensor(camera.sensor_id)
    database.write_rig(rig, use_rig_id=True)
    image = pycolmap.Image(name=name, camera_id=number, image_id=number)
    database.write_image(image, use_image_id=True)
    frame = pycolmap.Frame()
    frame.frame_id, frame.rig_id = number, number
    frame.add_data_id(image.data_id)
    database.write_frame(frame, use_frame_id=True)
    database.write_keypoints(number, np.ascontiguousarray(features.keypoints))
    return number


def _write_link(
    database: pycolmap.Database, a: tuple[int, Features], b: tuple[int, Features], matches: np.ndarray
) -> None:
    rows = np.ascontiguousarray(matches, dtype=np.uint32)
    database.write_matches(a[0], b[0], rows)
    options = pycolmap.TwoViewGeometryOptions()
    options.min_num_inliers, options.ransac.random_seed = MIN_LINK, 0
    geometry = pycolmap.estimate_two_view_geometry(
        camera_of(a[1]),
        a[1].keypoints[:, :2].astype(np.float64),
        camera_of(b[1]),
        b[1].keypoints[:, :2].astype(np.float64),
        rows,
        options,
    )
    database.write_two_view_geometry(a[0], b[0], geometry)


def read_models(folder: Path) -> list[SparseModel]:
    """COLMAP models on disk, binary or text: `folder` itself, or every folder below it that holds one.

    Raises: ValueError if there is none.
    """
    found = sorted({path.parent for name in ("images.bin", "images.txt") for path in folder.rglob(name)})
    if not found:
        raise ValueError(f"No COLMAP model (images.bin or images.txt) at or below {folder}. Name the `sparse` folder.")
    return [_sparse(pycolmap.Reconstruction(path), None) for path in found]


def _sparse(model: pycolmap.Reconstruction, features: Mapping[str, Features] | None) -> SparseModel:
    registered = {number: image for number, image in model.images.items() if image.has_pose}
    order = sorted(registered, key=lambda number: registered[number].name)
    row_of = {number: row for row, number in enumerate(order)}
    points, colours = [], []
    seen: list[tuple[int, int, float, int]] = []
    poses = {number: _pose(registered[number]) for number in order}
    for at, number in enumerate(sorted(model.points3D)):
        point = model.points3D[number]
        points.append(np.asarray(point.xyz))
        elements = [element for element in point.track.elements if element.image_id in row_of]
        colours.append(_colour(point, elements, registered, features))
        for element in elements:
            rotation, translation, focal = poses[element.image_id]
            depth = float(rotation[2] @ point.xyz + translation[2])
            seen.append((row_of[element.image_id], at, focal / depth if depth > 0 else 0.0, element.point2D_idx))
    watched = np.array(seen, dtype=np.float64).reshape(-1, 4)
    return SparseModel(
        image_ids=[registered[number].name for number in order],
        centres=np.array([np.asarray(registered[number].projection_center()) for number in order]).reshape(-1, 3),
        directions=np.array([np.asarray(registered[number].viewing_direction()) for number in order]).reshape(-1, 3),
        points=np.array(points).reshape(-1, 3),
        colours=np.array(colours, dtype=np.uint8).reshape(-1, 3),
        obs_image=watched[:, 0].astype(np.int64),
        obs_point=watched[:, 1].astype(np.int64),
        obs_scale=watched[:, 2],
        obs_feature=watched[:, 3].astype(np.int64),
    )


def _pose(image: Any) -> tuple[np.ndarray, np.ndarray, float]:
    pose = image.cam_from_world()
    return pose.rotation.matrix(), np.asarray(pose.translation), float(image.camera.mean_focal_length())


def _colour(
    point: Any, elements: Iterable[Any], registered: Mapping[int, Any], features: Mapping[str, Features] | None
) -> np.ndarray:
    if features is None:
        return np.asarray(point.color, np.uint8)
    seen = [features[registered[e.image_id].name].colours[e.point2D_idx] for e in elements]
    return np.median(seen, axis=0).astype(np.uint8) if seen else np.zeros(3, np.uint8)
