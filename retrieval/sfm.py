"""Local features, two-view geometry and structure-from-motion, by COLMAP. The only module that imports pycolmap.

Everything is seeded and runs on one thread: the same photos give the same models, whoever computes them.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from retrieval import images
from retrieval.covisibility import SparseModel

MIN_LINK = 12
"""Fewer matches than this, even if one geometry fits them, are what chance gives."""
_FOCAL = 1.2  # prior of a photo's focal length, in long sides: COLMAP's own default
pycolmap.logging.minloglevel = 2  # errors only


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """Local features of one photo.

    keypoints: (N, 4) float32 x, y, scale, orientation, in pixels of the stored photo, strongest first by COLMAP.
    descriptors: (N, 128) uint8, RootSIFT (square roots of L1-normalised SIFT) times 512. colours: (N, 3) uint8 RGB.
    """

    keypoints: np.ndarray
    descriptors: np.ndarray
    colours: np.ndarray
    width: int
    height: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """Matches of two photos that one epipolar geometry or homography explains. matches: (M, 2) int32 feature rows."""

    num_inliers: int
    matches: np.ndarray


@functools.lru_cache(maxsize=2)
def _sift(max_features: int) -> pycolmap.FeatureExtractor:
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu, options.num_threads = False, 1
    options.sift.max_num_features = max_features
    options.sift.normalization = pycolmap.Normalization.L1_ROOT
    return pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)


def extract(jpeg: bytes, *, max_features: int = 2048) -> Features:
    """SIFT features of a stored photo; none where it shows nothing (all black, a few pixels).

    Raises: ValueError if the bytes are no JPEG.
    """
    pixels = images.decode_whole(jpeg)
    height, width = pixels.shape[:2]
    keypoints, descriptors = np.empty((0, 4), np.float32), np.empty((0, 128), np.uint8)
    if min(height, width) >= 16:
        points, found = _sift(max_features).extract_from_uint8_array(images.grey(pixels))
        if len(points):
            # COLMAP keeps whole octaves, so it may give some more than was asked for.
            keypoints = np.asarray(pycolmap.keypoints_to_matrix(points), np.float32)[:max_features, :4]
            descriptors = np.asarray(found.data, np.uint8)[:max_features]
    at = np.clip(keypoints[:, :2].astype(np.int64), 0, [width - 1, height - 1])
    return Features(
        keypoints=keypoints, descriptors=descriptors, colours=pixels[at[:, 1], at[:, 0]], width=width, height=height
    )


def match(a: Features, b: Features, *, max_ratio: float = 0.8) -> np.ndarray:
    """Mutually nearest descriptors that pass Lowe's ratio test both ways: (M, 2) int32 rows of a and b.

    With d^2 = 2 - 2 cos of unit vectors, the ratio of the distances to the nearest and the second nearest is below
    `max_ratio` (Lowe, IJCV 2004, sec. 7.1).
    """
    if len(a.descriptors) < 2 or len(b.descriptors) < 2:
        return np.empty((0, 2), np.int32)
    cosines = _unit(a.descriptors) @ _unit(b.descriptors).T
    forward, sure = _nearest(cosines, max_ratio)
    rows = np.flatnonzero(sure)
    # The way back is looked at only for the few that passed: it reads the matrix against its grain.
    backward, sure = _nearest(np.ascontiguousarray(cosines[:, forward[rows]].T), max_ratio)
    rows = rows[(backward == rows) & sure]
    return np.stack([rows, forward[rows]], axis=1).astype(np.int32)


def _unit(descriptors: np.ndarray) -> np.ndarray:
    x = descriptors.astype(np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)


def _nearest(cosines: np.ndarray, max_ratio: float) -> tuple[np.ndarray, np.ndarray]:
    best = cosines.argmax(axis=1)
    first = cosines[np.arange(len(best)), best]
    rows = np.arange(len(best))
    cosines[rows, best] = -np.inf
    second = cosines.max(axis=1)
    cosines[rows, best] = first
    return best, (2 - 2 * first) < max_ratio**2 * (2 - 2 * second)


def verify(a: Features, b: Features, *, max_error: float = 4.0, max_ratio: float = 0.8, seed: int = 0) -> Verified:
    """Match two photos and keep what one two-view geometry explains (LO-RANSAC, seeded).

    Args: max_error: pixels from the epipolar line, or from the point's place under a homography.
    """
    pairs = match(a, b, max_ratio=max_ratio)
    if len(pairs) < MIN_LINK:
        return Verified(num_inliers=0, matches=np.empty((0, 2), np.int32))
    options = pycolmap.TwoViewGeometryOptions()
    options.min_num_inliers, options.ransac.max_error, options.ransac.random_seed = MIN_LINK, max_error, seed
    geometry = pycolmap.estimate_two_view_geometry(
        _camera(a),
        a.keypoints[:, :2].astype(np.float64),
        _camera(b),
        b.keypoints[:, :2].astype(np.float64),
        pairs.astype(np.uint32),
        options,
    )
    inliers = np.asarray(geometry.inlier_matches, dtype=np.int32).reshape(-1, 2)
    if geometry.config in _NO_GEOMETRY:
        inliers = inliers[:0]
    return Verified(num_inliers=len(inliers), matches=inliers)


_NO_GEOMETRY = (
    pycolmap.TwoViewGeometryConfiguration.UNDEFINED,
    pycolmap.TwoViewGeometryConfiguration.DEGENERATE,
    pycolmap.TwoViewGeometryConfiguration.WATERMARK,
)


def _camera(features: Features, camera_id: int = 1) -> pycolmap.Camera:
    long_side = max(features.width, features.height)
    return pycolmap.Camera.create_from_model_name(
        camera_id, "SIMPLE_RADIAL", _FOCAL * long_side, features.width, features.height
    )


Link = tuple[str, str, np.ndarray]
"""Two image_ids and the (M, 2) rows of their features that match."""


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


def map_images(features: Mapping[str, Features], links: Sequence[Link], *, min_images: int = 3) -> list[SparseModel]:
    """Incremental mapping of one group of linked photos: the models found, the largest first; none where none holds.

    Args:
        features: of every photo of the group. links: verified pairs of them.
    """
    names = sorted(features)
    with tempfile.TemporaryDirectory() as temp:
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


def _num_images(models: Sequence[SparseModel]) -> int:
    return len({name for model in models for name in model.image_ids})


def _write_image(database: pycolmap.Database, number: int, name: str, features: Features) -> int:
    camera = _camera(features, number)
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
        _camera(a[1]),
        a[1].keypoints[:, :2].astype(np.float64),
        _camera(b[1]),
        b[1].keypoints[:, :2].astype(np.float64),
        rows,
        options,
    )
    database.write_two_view_geometry(a[0], b[0], geometry)


def _sparse(model: pycolmap.Reconstruction, features: Mapping[str, Features] | None) -> SparseModel:
    registered = {number: image for number, image in model.images.items() if image.has_pose}
    order = sorted(registered, key=lambda number: registered[number].name)
    row_of = {number: row for row, number in enumerate(order)}
    points, colours = [], []
    seen: list[tuple[int, int, float]] = []
    poses = {number: _pose(registered[number]) for number in order}
    for at, number in enumerate(sorted(model.points3D)):
        point = model.points3D[number]
        points.append(np.asarray(point.xyz))
        elements = [element for element in point.track.elements if element.image_id in row_of]
        colours.append(_colour(point, elements, registered, features))
        for element in elements:
            rotation, translation, focal = poses[element.image_id]
            depth = float(rotation[2] @ point.xyz + translation[2])
            seen.append((row_of[element.image_id], at, focal / max(depth, 1e-9)))
    watched = np.array(seen, dtype=np.float64).reshape(-1, 3)
    return SparseModel(
        image_ids=[registered[number].name for number in order],
        centres=np.array([np.asarray(registered[number].projection_center()) for number in order]).reshape(-1, 3),
        directions=np.array([np.asarray(registered[number].viewing_direction()) for number in order]).reshape(-1, 3),
        points=np.array(points).reshape(-1, 3),
        colours=np.array(colours, dtype=np.uint8).reshape(-1, 3),
        obs_image=watched[:, 0].astype(np.int64),
        obs_point=watched[:, 1].astype(np.int64),
        obs_scale=watched[:, 2],
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


def read_models(folder: Path) -> list[SparseModel]:
    """COLMAP models on disk, binary or text: `folder` itself, or every folder below it that holds one.

    Raises: ValueError if there is none.
    """
    found = sorted({path.parent for name in ("images.bin", "images.txt") for path in folder.rglob(name)})
    if not found:
        raise ValueError(f"No COLMAP model (images.bin or images.txt) at or below {folder}. Name the `sparse` folder.")
    return [_sparse(pycolmap.Reconstruction(path), None) for path in found]
