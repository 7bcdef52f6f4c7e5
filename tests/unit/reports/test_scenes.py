"""Reconstructed places from above and from the side."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import seal
from retrieval.geometry.sparse_model import SparseModel, write_model
from retrieval.reports import scenes, style


def test_a_badly_placed_camera_does_not_shrink_the_scene_to_a_dot() -> None:
    rng = np.random.default_rng(0)
    points, centres = rng.normal(size=(500, 3)), 6 * rng.normal(size=(16, 3))
    points[3], centres[5] = 900, 7000
    near_points, near_cameras = scenes.in_view(points, centres)
    assert np.flatnonzero(~near_cameras).tolist() == [5]
    assert np.flatnonzero(~near_points).tolist() == [3]


def model(seed: int, num: int = 5) -> SparseModel:
    """Cameras in a row along x that look along -y at points in front of them."""
    rng = np.random.default_rng(seed)
    return SparseModel(
        image_ids=[f"{seed}/{n:02d}.jpg" for n in range(num)],
        centres=np.stack([np.arange(num) * 4.0, np.zeros(num), np.zeros(num)], axis=1),
        directions=np.tile([0.0, -1, 0], (num, 1)),
        points=rng.normal(size=(40, 3)) * (6, 2, 1) + (8, -6, 0),
        colours=np.tile(np.array([10, 200, 30], np.uint8), (40, 1)),
        obs_image=np.arange(num),
        obs_point=np.arange(num),
        obs_scale=np.ones(num),
    )


def test_the_largest_places_are_shown_largest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuples = Folder.of(tmp_path)
    for number, num in enumerate((3, 6, 4, 6, 2)):
        write_model(tuples, number, model(number, num))
    seal(tuples, kind="tuples", config={}, inputs={}, counts={"models": 5})
    shown: list[tuple[SparseModel, str, str]] = []

    def spy(one: SparseModel, title: str, second: str) -> bytes:
        shown.append((one, title, second))
        return b"png"

    monkeypatch.setattr(scenes, "scene_png", spy)
    assert scenes.scene_plots(tuples) == [(f"reconstructed place {n}", b"png") for n in (1, 2, 3)]
    assert [one.image_ids for one, *_ in shown] == [model(n, num).image_ids for n, num in ((1, 6), (3, 6), (2, 4))]
    assert shown[0][1:] == ("6 cameras, 40 points", "from the other side: 1/00.jpg ...")


def test_places_of_labels_have_no_model(tmp_path: Path) -> None:
    seal(Folder.of(tmp_path), kind="tuples", config={}, inputs={}, counts={"models": 0})
    assert scenes.scene_plots(Folder.of(tmp_path)) == []


def drawn(shown: SparseModel, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The two views."""
    seen: list[Any] = []
    real = style.saved

    def spy(figure: Any, kind: str) -> bytes:
        seen.extend(figure.axes)
        return real(figure, kind)

    monkeypatch.setattr(scenes, "saved", spy)
    scenes.scene_png(shown, "first", "second")
    return seen


@pytest.mark.parametrize("turned", [False, True])
def test_a_place_is_seen_along_the_axes_in_which_it_spreads(turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """However its frame lies: the cameras' distances are seen whole, and the third axis is the shortest."""
    shown = model(0)
    if turned:
        turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
        names = ("centres", "points", "directions")
        shown = dataclasses.replace(shown, **{name: getattr(shown, name) @ turn.T for name in names})
    first, second = drawn(shown, monkeypatch)
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["first", "second"]
    points, cameras = first.collections[0], first.collections[-1]
    place = np.asarray(cameras.get_offsets())
    assert np.linalg.norm(place - place[0], axis=1) == pytest.approx(np.arange(5) * 4, rel=0.05)
    assert len(points.get_offsets()) == 40
    assert np.allclose(points.get_facecolor()[:, :3] * 255, [10, 200, 30])
    spread = [np.ptp(np.asarray(axes.collections[0].get_offsets()), axis=0) for axes in (first, second)]
    assert spread[0][0] == spread[1][0] > spread[0][1] > spread[1][1]
    assert first.get_aspect() == second.get_aspect() == 1


def test_cameras_look_at_their_points(monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = drawn(model(0), monkeypatch)
    arrows = first.collections[1]
    looks = np.stack([arrows.U, arrows.V], axis=1)
    cameras, points = (np.asarray(first.collections[at].get_offsets()) for at in (-1, 0))
    assert (looks @ (points.mean(axis=0) - cameras.mean(axis=0)) > 0).all()
    assert 0 < np.linalg.norm(looks, axis=1).max() < 0.15 * np.ptp(cameras)


def test_what_lies_far_outside_is_counted_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = model(0)
    shown.centres[4] = 5000
    first, _ = drawn(shown, monkeypatch)
    assert first.get_title(loc="left") == "first (1 far outside)"
    assert len(first.collections[-1].get_offsets()) == 4
    assert np.ptp(first.get_xlim()) < 100


def test_every_camera_is_in_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three among many points that lie close together: fewer than one in a hundred of what is drawn."""
    shown = model(3, num=3)
    points = np.random.default_rng(4).normal(size=(600, 3)) * 0.5 + (8, -6, 0)
    shown = dataclasses.replace(shown, points=points, colours=np.zeros((600, 3), np.uint8))
    for axes in drawn(shown, monkeypatch):
        place = np.asarray(axes.collections[-1].get_offsets())
        for values, (low, high) in zip(place.T, (axes.get_xlim(), axes.get_ylim()), strict=True):
            assert low < values.min() and values.max() < high
