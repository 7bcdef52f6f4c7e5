"""Models that COLMAP makes of a drawn place and leaves on disk, and what is read of each camera and point."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retrieval.data.demo.places import building, photograph
from retrieval.data.demo.settings import SceneConfig
from retrieval.geometry import mapping
from retrieval.geometry.colmap import pycolmap
from retrieval.geometry.features import Features, extract
from retrieval.geometry.mapping import Link, map_images, read_models
from retrieval.geometry.matching.two_views import verify
from retrieval.geometry.settings import MIN_LINK
from retrieval.geometry.sparse_model import SparseModel
from retrieval.images.pixels import encode_jpeg
from tests.support.local import blank_features

SCENE = SceneConfig(num_places=1, images_per_place=6, size=360, seed=2)
NAMES = [f"castle/{number:03d}.jpg" for number in range(SCENE.images_per_place)]


@pytest.fixture(scope="module")
def checked() -> tuple[dict[str, Features], list[Link]]:
    features = {}
    for number, name in enumerate(NAMES):
        data = encode_jpeg(photograph(building(2, 0), SCENE, 0, number))
        features[name] = extract(data, max_features=1024)
    pairs = [(a, b) for at, a in enumerate(NAMES) for b in NAMES[at + 1 :]]
    found = [(a, b, verify(features[a], features[b])) for a, b in pairs]
    return features, [(a, b, done.matches) for a, b, done in found if done.num_inliers >= 15]


@pytest.fixture(scope="module")
def mapped(
    checked: tuple[dict[str, Features], list[Link]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, SparseModel]:
    """A folder with the model that COLMAP itself wrote, in binary; and the model as `map_images` gave it."""
    folder = tmp_path_factory.mktemp("colmap") / "sparse"
    incremental = pycolmap.incremental_mapping

    def kept(*args: Any) -> Any:
        found = incremental(*args)
        for number, model in found.items():
            (folder / str(number)).mkdir(parents=True)
            model.write(folder / str(number))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pycolmap, "incremental_mapping", kept)
        models = map_images(*checked)
    assert len(models) == 1 and len(models[0].image_ids) >= 5
    return folder, models[0]


def test_a_model_on_disk_is_the_model_that_was_mapped(mapped: tuple[Path, SparseModel], tmp_path: Path) -> None:
    folder, model = mapped
    as_text = tmp_path / "0"
    as_text.mkdir()
    pycolmap.Reconstruction(folder / "0").write_text(as_text)
    for where in (folder, folder / "0", tmp_path):
        (read,) = read_models(where)
        assert read.image_ids == model.image_ids
        for name in ("centres", "directions", "points", "obs_scale"):
            assert np.allclose(getattr(read, name), getattr(model, name), rtol=1e-6), name
        for name in ("obs_image", "obs_point"):
            assert np.array_equal(getattr(read, name), getattr(model, name)), name
    with pytest.raises(ValueError, match="No COLMAP model"):
        read_models(tmp_path / "absent")


def test_several_models_are_read_in_the_order_of_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b/images.bin", "b/images.txt", "a/deep/images.txt", "c/points3D.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(pycolmap, "Reconstruction", lambda path: path)
    monkeypatch.setattr(mapping, "_sparse", lambda path, features: (path, features))
    assert read_models(tmp_path) == [(tmp_path / "a/deep", None), (tmp_path / "b", None)]


def test_a_model_agrees_with_its_photos(
    mapped: tuple[Path, SparseModel], checked: tuple[dict[str, Features], list[Link]]
) -> None:
    """Pixels per unit of length times depth is the camera's focal length; colours are what the photos show there."""
    model, features = mapped[1], checked[0]
    offset = model.points[model.obs_point] - model.centres[model.obs_image]
    depth = (offset * model.directions[model.obs_image]).sum(axis=1)
    assert (depth > 0).all() and np.allclose(np.linalg.norm(model.directions, axis=1), 1)
    focal = model.obs_scale * depth
    for image, name in enumerate(model.image_ids):
        own = focal[model.obs_image == image]
        assert np.allclose(own, own[0], rtol=1e-6)
        assert 0.5 < own[0] / max(features[name].width, features[name].height) < 3
    average = np.concatenate([features[name].colours for name in model.image_ids]).mean(axis=0)
    assert np.abs(model.colours.mean(axis=0) - average).max() < 40
    assert len(np.unique(model.colours, axis=0)) > 20


def test_the_same_links_give_the_same_model(
    mapped: tuple[Path, SparseModel], checked: tuple[dict[str, Features], list[Link]]
) -> None:
    (again,) = map_images(*checked)
    assert again.image_ids == mapped[1].image_ids
    assert np.array_equal(again.points, mapped[1].points) and np.array_equal(again.colours, mapped[1].colours)


def named(names: str, num_points: int = 1) -> SparseModel:
    num = len(names)
    nothing = np.empty(0, np.int64)
    return SparseModel(
        image_ids=list(names),
        centres=np.zeros((num, 3)),
        directions=np.zeros((num, 3)),
        points=np.zeros((num_points, 3)),
        colours=np.zeros((num_points, 3), np.uint8),
        obs_image=nothing,
        obs_point=nothing,
        obs_scale=np.empty(0),
    )


@pytest.mark.parametrize(
    ("tries", "kept", "num_tries"),
    [
        ([["abc"], ["abcdef"]], ["abc"], 1),  # half of the photos are enough
        ([["ab"], ["cdef", "ab"]], ["cdef"], 2),  # two are no model of three
        ([["abc"], []], ["abc"], 1),
        ([[], ["def", "abc"]], ["abc", "def"], 2),  # of one size: by name
        ([["bc", "ac"], ["ab"]], [], 2),
        ([["bcd"], ["xy"]], ["bcd"], 1),
        ([["abc", "bcdf"]], ["bcdf", "abc"], 1),
    ],
)
def test_a_second_beginning_is_tried_where_the_first_leaves_out_most(
    monkeypatch: pytest.MonkeyPatch, tries: list[list[str]], kept: list[str], num_tries: int
) -> None:
    asked: list[Any] = []

    def incremental(_database: Path, _images: Path, out: Path, options: Any) -> dict[int, str]:
        assert out.is_dir()
        asked.append(options)
        return dict(enumerate(tries[len(asked) - 1]))

    monkeypatch.setattr(pycolmap, "incremental_mapping", incremental)
    monkeypatch.setattr(mapping, "_sparse", lambda names, _: named(names))
    models = map_images(dict.fromkeys("abcdef", blank_features(2)), [], min_images=3)
    assert ["".join(model.image_ids) for model in models] == kept
    assert len(asked) == num_tries
    assert [options.min_model_size for options in asked] == [3] * num_tries
    begins = [(o.mapper.init_max_error, o.mapper.init_min_tri_angle) for o in asked]
    assert begins == [(4.0, 8.0), (8.0, 4.0)][:num_tries]


def test_a_larger_half_is_kept_though_the_second_beginning_found_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models of the same three images are three images, not six, and less than one of four."""
    found = iter([["abcd"], ["efg", "efg"]])
    monkeypatch.setattr(pycolmap, "incremental_mapping", lambda *_: dict(enumerate(next(found))))
    monkeypatch.setattr(mapping, "_sparse", lambda names, _: named(names))
    models = map_images(dict.fromkeys("abcdefghij", blank_features(2)), [], min_images=3)
    assert [model.image_ids for model in models] == [["a", "b", "c", "d"]]
    assert list(found) == []


def test_mapping_is_seeded_on_one_thread_and_begins_from_fewer_matches_than_colmap_would() -> None:
    options = mapping._mapping_options(mapping._BEGINNINGS[1], 5)
    assert (options.num_threads, options.random_seed, options.min_model_size) == (1, 0, 5)
    assert (options.min_num_matches, options.extract_colors) == (MIN_LINK, False)
    mapper = options.mapper
    assert (mapper.init_min_num_inliers, mapper.abs_pose_min_num_inliers) == (40, 20)
    assert (mapper.init_max_error, mapper.init_min_tri_angle, mapper.init_max_forward_motion) == (8.0, 4.0, 1.0)


def test_photos_and_links_are_written_for_colmap_as_they_are(
    checked: tuple[dict[str, Features], list[Link]], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, links = checked
    seen: dict[str, Any] = {}

    def incremental(path: Path, *_: Any) -> dict[int, Any]:
        with pycolmap.Database.open(path) as database:
            seen["images"] = {image.image_id: image.name for image in database.read_all_images()}
            seen["cameras"] = {c.camera_id: (c.width, c.height) for c in database.read_all_cameras()}
            seen["keypoints"] = {number: database.read_keypoints(number) for number in seen["images"]}
            a, b = 1, 2
            seen["matches"] = database.read_matches(a, b)
            seen["geometry"] = database.read_two_view_geometry(a, b)
        return {}

    monkeypatch.setattr(pycolmap, "incremental_mapping", incremental)
    (first,) = [link for link in links if link[:2] == (NAMES[0], NAMES[1])]
    assert map_images(features, [first]) == []
    assert seen["images"] == dict(enumerate(NAMES, 1))
    for number, name in enumerate(NAMES, 1):
        assert seen["cameras"][number] == (features[name].width, features[name].height)
        assert np.allclose(seen["keypoints"][number][:, :2], features[name].keypoints[:, :2])
    assert np.array_equal(seen["matches"], first[2])
    assert 15 <= len(seen["geometry"].inlier_matches) <= len(first[2])


def seen_by(*images: tuple[int, int]) -> SimpleNamespace:
    elements = [SimpleNamespace(image_id=number, point2D_idx=row) for number, row in images]
    return SimpleNamespace(elements=elements)


def camera(name: str, x: float, focal: float, *, has_pose: bool = True) -> SimpleNamespace:
    """It stands at (x, 0, 0) and looks along z."""
    rotation = SimpleNamespace(matrix=lambda: np.eye(3))
    return SimpleNamespace(
        name=name,
        has_pose=has_pose,
        camera=SimpleNamespace(mean_focal_length=lambda: focal),
        cam_from_world=lambda: SimpleNamespace(rotation=rotation, translation=[-x, 0.0, 0.0]),
        projection_center=lambda: [x, 0.0, 0.0],
        viewing_direction=lambda: [0.0, 0.0, 1.0],
    )


def test_images_are_sorted_and_points_seen_by_those_without_a_pose_are_not_seen() -> None:
    images = {7: camera("b", 1.0, 100.0), 3: camera("c", 2.0, 300.0), 5: camera("a", 3.0, 1.0, has_pose=False)}
    points = {
        9: SimpleNamespace(xyz=[0.0, 0.0, 4.0], color=[1, 2, 3], track=seen_by((3, 1), (7, 0), (5, 0))),
        2: SimpleNamespace(xyz=[0.0, 1.0, 2.0], color=[4, 5, 6], track=seen_by((7, 1))),
        4: SimpleNamespace(xyz=[0.0, 1.0, -2.0], color=[7, 8, 9], track=seen_by((7, 0))),
    }
    found: Any = SimpleNamespace(images=images, points3D=points)
    colours = {"b": [[10, 10, 10], [20, 40, 60]], "c": [[0, 0, 0], [30, 50, 90]]}
    features = {
        name: Features(
            keypoints=np.empty(0), descriptors=np.empty(0), colours=np.array(own, np.uint8), width=9, height=9
        )
        for name, own in colours.items()
    }
    model = mapping._sparse(found, features)
    assert model.image_ids == ["b", "c"]
    assert model.centres.tolist() == [[1, 0, 0], [2, 0, 0]] and model.directions.tolist() == [[0, 0, 1]] * 2
    assert model.points.tolist() == [[0, 1, 2], [0, 1, -2], [0, 0, 4]]
    assert model.colours.tolist() == [[20, 40, 60], [10, 10, 10], [20, 30, 50]]  # the last is the middle of two
    sightings = list(zip(model.obs_image.tolist(), model.obs_point.tolist(), model.obs_scale.tolist()))
    assert sightings == [(0, 0, 50.0), (0, 1, 0.0), (1, 2, 75.0), (0, 2, 25.0)]  # 0: it is behind the camera
    assert mapping._sparse(found, None).colours.tolist() == [[4, 5, 6], [7, 8, 9], [1, 2, 3]]
