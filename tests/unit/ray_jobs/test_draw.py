"""The demo's photos: all of them, once, on a local disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ray_jobs import draw
from retrieval.artifacts.folder import Folder
from retrieval.data.demo import faces, places
from retrieval.data.demo.settings import DemoConfig, SceneConfig
from tests.support.inline import install


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the drawing functions were asked for; the lists are written as faces.py does, last."""
    calls: list[Any] = []

    def lists(folder: Path, demo: DemoConfig) -> None:
        calls.append(("lists", folder, demo))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "identity_CelebA.txt").write_text("")

    monkeypatch.setattr(faces, "draw_images", lambda folder, start, stop, demo, *rest: calls.append((start, stop)))
    monkeypatch.setattr(faces, "write_lists", lists)
    monkeypatch.setattr(places, "write_scenes", lambda folder, scenes, *rest: calls.append((folder, scenes)) or folder)
    return calls


def test_every_photo_is_drawn_by_one_task_and_the_lists_come_last(
    drawn: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, demo, out = (
        install(monkeypatch, draw),
        DemoConfig(num_identities=50, images_per_identity=5),
        tmp_path / "d",
    )
    assert draw.draw_faces(demo, Folder.of(out)) == str(out)
    assert drawn == [(0, 100), (100, 200), (200, 250), ("lists", out, demo)]
    assert cluster.parts[0]["total_items"] == 250
    assert draw.draw_from(200, Folder.of(out), demo)["taken"] == 50
    drawn.clear()
    draw.draw_faces(demo, Folder.of(out))
    assert drawn == [], "they are all there"


def test_an_interrupted_drawing_is_done_again(
    drawn: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, draw)
    (tmp_path / "list_attr_celeba.txt").write_text("")
    draw.draw_faces(DemoConfig(num_identities=1, images_per_identity=2), Folder.of(tmp_path))
    assert drawn[0] == (0, 2)


def test_places_are_drawn_by_one_task(drawn: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, draw)
    scenes = SceneConfig(num_places=2)
    assert draw.draw_places(scenes, Folder.of(tmp_path)) == str(tmp_path)
    assert drawn == [(tmp_path, scenes)]


def test_an_object_store_is_no_place_to_draw_in(drawn: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, draw)
    bucket = Folder("mock://bucket/photos")
    monkeypatch.setattr(Folder, "is_local", False)
    for work, settings in ((draw.draw_faces, DemoConfig()), (draw.draw_places, SceneConfig())):
        with pytest.raises(ValueError, match=r"local disk, the workspace is mock://bucket/photos\. Give --source"):
            work(settings, bucket)  # type: ignore[operator]
    assert drawn == []
