"""Buildings and their photos follow from the seed, are listed as they are drawn, and look as they looked."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval.data.demo.places import building, photograph, write_scenes
from retrieval.data.demo.settings import SceneConfig
from retrieval.images.pixels import encode_jpeg
from tests.support import drawn

CONFIG = SceneConfig(num_places=2, images_per_place=3, num_distractors=2, size=160)
SMALL = SceneConfig(num_places=1, images_per_place=2, num_distractors=1, size=96)


def test_all_photos_are_drawn_and_listed(tmp_path: Path) -> None:
    listed = write_scenes(tmp_path, CONFIG)
    rows = list(csv.DictReader(listed.open()))
    assert [row["label"] for row in rows] == ["place_000"] * 3 + ["place_001"] * 3 + ["", ""]
    for row in rows:
        with Image.open(tmp_path / row["path"]) as photo:
            assert max(photo.size) == CONFIG.size
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.jpg")}
    listed.unlink()
    write_scenes(tmp_path, CONFIG)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.jpg")} == before


def test_a_photo_on_disk_is_that_of_its_place_and_number(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, seed=3)
    listed = write_scenes(tmp_path, config)
    assert listed == tmp_path / "manifest.csv"
    names = {"place_000/000.jpg": (0, 0), "place_000/001.jpg": (0, 1), "distractors/0001.jpg": (1, 0)}
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == sorted([*names, "manifest.csv"])
    for name, (place, number) in names.items():
        expected = encode_jpeg(photograph(building(3, place), config, place, number), 92)
        assert (tmp_path / name).read_bytes() == expected
    assert Image.open(tmp_path / "place_000/000.jpg").format == "JPEG"


def test_a_set_that_is_whole_is_left_as_it_is_and_the_list_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrieval.data.demo import places

    def fails(*_: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(places, "photograph", fails)
        with pytest.raises(OSError, match="killed"):
            write_scenes(tmp_path, SMALL)
    assert not (tmp_path / "manifest.csv").exists()
    (tmp_path / "manifest.csv").write_text("mine")
    assert write_scenes(tmp_path, SMALL).read_text() == "mine" and not list(tmp_path.rglob("*.jpg"))


def test_another_seed_draws_other_places() -> None:
    one = photograph(building(0, 0), CONFIG, 0, 0)
    other = photograph(building(1, 0), CONFIG, 0, 0)
    assert not np.array_equal(one, other)


def test_seed_place_and_number_each_change_the_photo() -> None:
    faces = building(0, 0)
    config = dataclasses.replace(SMALL, images_per_place=3)
    photos = [
        photograph(faces, dataclasses.replace(config, seed=seed), place, number)
        for seed, place, number in ((0, 0, 0), (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    assert np.array_equal(photos[0], photos[1])
    for other in photos[2:]:
        assert other.shape != photos[0].shape or np.abs(other.astype(int) - photos[0]).mean() > 10


def test_buildings_differ_by_their_number_and_stand_on_their_ground() -> None:
    one, same, other = building(0, 0), building(0, 0), building(0, 1)
    assert all(np.array_equal(a.corners, b.corners) and np.array_equal(a.texture, b.texture) for a, b in zip(one, same))
    assert one[30].corners.tolist() != other[30].corners.tolist()
    paving, walls = one[:30], one[30:]
    assert all((face.corners[:, 2] == 0).all() for face in paving)
    assert 20 <= len(walls) <= 30 and len(walls) % 5 == 0  # a body, a tower, a porch, one to three chimneys
    corners = np.concatenate([face.corners for face in walls])
    assert corners[:, 2].min() == 0 and 5 <= corners[:, 2].max() <= 14
    assert np.ptp(corners[:, 0]) < 18


def test_cameras_go_round_the_front_so_that_neighbours_see_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval.data.demo import places

    cameras = []

    def kept(faces: object, camera: places.Camera, sky: np.ndarray, sun: np.ndarray, ambient: float) -> np.ndarray:
        cameras.append(camera)
        assert np.linalg.norm(sun) == pytest.approx(1) and sun[1] < 0 < sun[2] and 0.5 <= ambient <= 0.8
        assert sky.shape == (camera.height, camera.width, 3)
        return sky

    monkeypatch.setattr(places.draw, "render", kept)
    config = SceneConfig(images_per_place=16, size=96)
    for number in range(16):
        photograph([], config, 0, number)
    angles = [np.degrees(np.arctan2(c.centre[0], 1.5 - c.centre[1])) for c in cameras]
    steps = (np.arange(16) + 0.5) / 16 * 95 - 47.5
    assert np.abs(np.array(angles) - steps).max() <= 6 and angles[0] < -30 and angles[-1] > 30
    away = [np.hypot(c.centre[0], c.centre[1] - 1.5) for c in cameras]
    assert 14 <= min(away) < max(away) <= 19
    assert {max(c.width, c.height) for c in cameras} == {96} and {c.width > c.height for c in cameras} == {True, False}


def test_places_are_drawn_as_they_were_when_figures_were_measured_on_them() -> None:
    with Image.open(drawn.PICTURE) as picture:
        before = np.asarray(picture)[73:].astype(int)
    change = np.abs(drawn.places() - before)
    assert change.mean() < 0.5 and np.percentile(change, 99.5) <= 8
