"""Textured solids through a camera: the nearer covers the farther, at the place and size that a pinhole gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from retrieval.data.demo import renderer
from retrieval.data.demo.renderer import Camera, Face, box, render, resized, tinted

CAMERA = Camera(centre=np.array([0.0, -8, 1]), target=np.array([0.0, 0, 1]), focal=1.0, width=90, height=90)
SKY, SUN = np.full((90, 90, 3), 255, np.uint8), np.array([0.0, -1, 0])
CORNERS = ((200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0))  # top left, top right, bottom right, bottom left


def plain(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((8, 8, 3), colour, np.uint8)


def quartered() -> np.ndarray:
    """(8, 8, 3): each quarter in its own colour, as CORNERS."""
    top_left, top_right, bottom_right, bottom_left = (np.full((4, 4, 3), colour, np.uint8) for colour in CORNERS)
    return np.vstack([np.hstack([top_left, top_right]), np.hstack([bottom_left, bottom_right])])


def test_the_nearer_box_covers_the_farther_whatever_the_order() -> None:
    near = box((-1, 0, 0), (1, 1, 2), [plain((200, 0, 0))] * 5)
    far = box((-3, 4, 0), (3, 5, 4), [plain((0, 200, 0))] * 5)
    pictures = [render(faces, CAMERA, SKY, SUN, 1.0) for faces in (near + far, far + near)]
    assert np.array_equal(pictures[0], pictures[1])
    # The red front is 2 wide at distance 8: 22.5 pixels about the middle; the green 6 wide at 12: 45 pixels.
    row = pictures[0][45]
    assert row[45].tolist() == [200, 0, 0]
    assert row[30].tolist() == [0, 200, 0]
    assert row[10].tolist() == [255, 255, 255]
    red = int((row[:, 0] == 200).sum())
    assert 20 <= red <= 24


@pytest.mark.parametrize("side", range(4))
def test_each_wall_of_a_box_shows_its_own_texture_upright_and_not_mirrored(side: int) -> None:
    """Seen from the front, the right, the back, the left: what a visitor who walks round would see."""
    textures = [plain((40, 40, 40))] * 5
    textures[side] = quartered()
    away = np.array([(0, -8), (8, 0), (0, 8), (-8, 0)][side], float)
    camera = dataclasses.replace(CAMERA, centre=np.array([*away, 1.0]))
    picture = render(box((-1, -1, 0), (1, 1, 2), textures), camera, SKY, SUN, 1.0)
    for (row, column), colour in zip(((40, 40), (40, 50), (50, 50), (50, 40)), CORNERS, strict=True):
        assert picture[row, column].tolist() == list(colour), (row, column)


def test_a_roof_is_seen_from_above_and_a_wall_not_from_behind() -> None:
    textures = [plain((10 * number, 0, 0)) for number in range(1, 6)]
    above = dataclasses.replace(CAMERA, centre=np.array([0.0, -1, 9]), target=np.array([0.0, 0, 0]))
    assert render(box((-1, -1, 0), (1, 1, 2), textures), above, SKY, SUN, 1.0)[40, 45].tolist() == [50, 0, 0]
    front = box((-1, -1, 0), (1, 1, 2), textures)[0]
    behind = dataclasses.replace(CAMERA, centre=np.array([0.0, 8, 1]))
    assert (render([front], behind, SKY, SUN, 1.0) == 255).all()
    around = dataclasses.replace(CAMERA, centre=np.array([0.0, -1.01, 1]))
    assert (render([front], around, SKY, SUN, 1.0) == 255).all()  # it reaches behind the camera


@pytest.mark.parametrize(("sun", "brightness"), [((0.0, -1, 0), 1.0), ((0.6, -0.8, 0), 0.88), ((0.0, 1, 0), 0.4)])
def test_a_wall_is_as_bright_as_the_sun_falls_on_it_and_never_dark(
    sun: tuple[float, float, float], brightness: float
) -> None:
    picture = render(box((-1, 0, 0), (1, 1, 2), [plain((200, 100, 50))] * 5), CAMERA, SKY, np.array(sun), 0.4)
    assert picture[45, 45] == pytest.approx(np.array([200, 100, 50]) * brightness, abs=1)
    assert picture[5, 5].tolist() == [255, 255, 255]  # the sky is not lit


def test_a_camera_looks_at_its_target_with_the_horizon_level() -> None:
    camera = Camera(centre=np.array([3.0, -4, 2]), target=np.array([0.0, 0, 1]), focal=1.5, width=80, height=60)
    axes = camera.axes()
    assert np.allclose(axes @ axes.T, np.eye(3)) and np.linalg.det(axes) == pytest.approx(1)
    assert np.allclose(axes[2], np.array([-3, 4, -1]) / 26**0.5) and axes[0][2] == 0 and axes[1][2] < 0
    assert axes[0] @ np.array([4.0, 3, 0]) > 0  # right is to the right of the way it looks
    assert camera.matrix(2.0).tolist() == [[240, 0, 80], [0, 240, 60], [0, 0, 1]]


def test_zoom_makes_things_larger_and_a_tall_picture_is_tall() -> None:
    wall = box((-1, 0, 0), (1, 1, 2), [plain((200, 0, 0))] * 5)
    widths = []
    for focal in (1.0, 2.0):
        picture = render(wall, dataclasses.replace(CAMERA, focal=focal), SKY, SUN, 1.0)
        widths.append(int((picture[45, :, 1] < 128).sum()))
    assert widths[1] == pytest.approx(2 * widths[0], abs=2)
    tall = render(wall, dataclasses.replace(CAMERA, height=120), np.full((120, 90, 3), 255, np.uint8), SUN, 1.0)
    assert tall.shape == (120, 90, 3) and (tall[60, :, 1] < 128).sum() == pytest.approx(widths[0], abs=1)


def test_a_far_wall_is_drawn_from_a_smaller_texture() -> None:
    """Else it would flicker: a fine chequer far away is grey, not black and white."""
    chequer = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)[:, :, None].repeat(3, axis=2)
    wall = Face(corners=np.array([(-1.0, 0, 2), (1, 0, 2), (1, 0, 0), (-1, 0, 0)]), texture=chequer)
    picture = render([wall], CAMERA, SKY, SUN, 1.0)[38:52, 38:52]
    assert picture.min() > 100 and picture.max() < 155
    seen = np.array([[0, 0], [100, 0], [100, 100], [0, 100]], np.float32)
    sizes = [renderer._at_seen_size(np.zeros((side, side, 3), np.uint8), seen).shape[0] for side in (99, 199, 200, 800)]
    assert sizes == [99, 199, 100, 100]


def test_another_light_and_lens_follow_from_the_draw_and_keep_the_picture() -> None:
    picture = np.random.default_rng(0).integers(60, 200, (60, 80, 3), dtype=np.uint8)
    picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), 3), np.uint8)
    views = [tinted(picture, np.random.default_rng(seed)).astype(float) for seed in (0, 0, *range(1, 20))]
    assert np.array_equal(views[0], views[1]) and all(np.abs(views[0] - view).mean() > 2 for view in views[2:])
    means = np.array([view.mean(axis=(0, 1)) for view in views[1:]])
    assert means.mean(axis=1).std() > 8  # exposure
    assert (means / means.mean(axis=1, keepdims=True)).std(axis=0).min() > 0.02  # white balance
    flat = np.stack([tinted(np.full((60, 80, 3), 128, np.uint8), np.random.default_rng(seed)) for seed in range(20)])
    middle, corner = flat[:, 25:35, 35:45].mean(axis=(1, 2, 3)), flat[:, :6, :6].mean(axis=(1, 2, 3))
    assert ((middle - corner) > -4).all() and (middle - corner).max() > 10  # corners are darker, if anything
    noise = flat[:, 25:35, 35:45].reshape(20, -1, 3).std(axis=1).mean(axis=1)
    assert noise.min() > 0.3 and noise.max() > 2


def test_noise_of_a_coarse_grid_is_made_smooth() -> None:
    fine = resized(np.array([[0.0, 1], [0, 1]]), 40, 20)
    assert fine.shape == (20, 40) and fine.dtype == np.float32
    assert np.allclose(fine, fine[0]) and (np.diff(fine[0]) >= -1e-6)[8:32].all()


INK, PAPER = (9, 8, 7), (200, 200, 200)


@pytest.mark.parametrize(
    ("paint", "inside", "outside"),
    [
        (lambda p: renderer.rectangle(p, 10, 20, 30, 25, INK), [(22, 20), (20, 10), (25, 30)], [(27, 20), (22, 33)]),
        (lambda p: renderer.ellipse(p, (20, 30), (10, 5), INK), [(30, 20), (30, 28)], [(30, 33), (37, 20)]),
        (lambda p: renderer.polygon(p, np.array([(5, 5), (25, 5), (5, 25)]), INK), [(7, 7)], [(22, 22)]),
    ],
)
def test_shapes_are_drawn_where_and_in_what_colour_they_are_asked_for(
    paint: Callable[[np.ndarray], None], inside: list[tuple[int, int]], outside: list[tuple[int, int]]
) -> None:
    picture = np.full((50, 50, 3), PAPER, np.uint8)
    paint(picture)
    assert all(tuple(picture[at]) == INK for at in inside) and all(tuple(picture[at]) == PAPER for at in outside)


def test_words_are_written_above_their_line_and_to_the_right() -> None:
    picture = np.full((60, 120, 3), 200, np.uint8)
    renderer.text(picture, "HOTEL", 10, 40, 1.0, (9, 8, 7))
    rows, columns = np.nonzero(picture[:, :, 0] < 100)
    assert rows.max() <= 41 and 15 <= rows.min() <= 25 and 8 <= columns.min() <= 14 and columns.max() > 80
