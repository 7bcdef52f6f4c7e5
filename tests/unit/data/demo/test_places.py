from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval.data.demo.places import building, photograph, write_scenes
from retrieval.data.demo.renderer import Camera, box, render
from retrieval.data.demo.settings import SceneConfig

CONFIG = SceneConfig(num_places=2, images_per_place=3, num_distractors=2, size=160)


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


def test_another_seed_draws_other_places() -> None:
    one = photograph(building(0, 0), CONFIG, 0, 0)
    other = photograph(building(1, 0), CONFIG, 0, 0)
    assert not np.array_equal(one, other)


def test_the_nearer_box_covers_the_farther_whatever_the_order() -> None:
    def plain(colour: tuple[int, int, int]) -> list[np.ndarray]:
        return [np.full((8, 8, 3), colour, np.uint8)] * 5

    near, far = box((-1, 0, 0), (1, 1, 2), plain((200, 0, 0))), box((-3, 4, 0), (3, 5, 4), plain((0, 200, 0)))
    camera = Camera(centre=np.array([0.0, -8, 1]), target=np.array([0.0, 0, 1]), focal=1.0, width=90, height=90)
    sky, sun = np.full((90, 90, 3), 255, np.uint8), np.array([0.0, -1, 0])
    pictures = [render(faces, camera, sky, sun, 1.0) for faces in (near + far, far + near)]
    assert np.array_equal(pictures[0], pictures[1])
    # The red front is 2 wide at distance 8: 22.5 pixels about the middle; the green 6 wide at 12: 45 pixels.
    row = pictures[0][45]
    assert row[45].tolist() == [200, 0, 0]
    assert row[30].tolist() == [0, 200, 0]
    assert row[10].tolist() == [255, 255, 255]
    red = int((row[:, 0] == 200).sum())
    assert 20 <= red <= 24


def test_bytes_are_a_photo_anyone_can_read(tmp_path: Path) -> None:
    write_scenes(tmp_path, CONFIG)
    data = (tmp_path / "place_000/000.jpg").read_bytes()
    assert Image.open(io.BytesIO(data)).format == "JPEG"


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="num_places is 0"):
        SceneConfig(num_places=0)
