from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image

from retrieval.data.demo.places import building, photograph, write_scenes
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


def test_bytes_are_a_photo_anyone_can_read(tmp_path: Path) -> None:
    write_scenes(tmp_path, CONFIG)
    data = (tmp_path / "place_000/000.jpg").read_bytes()
    assert Image.open(io.BytesIO(data)).format == "JPEG"
