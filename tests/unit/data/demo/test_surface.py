"""Coordinates on a face undo its pose; masks are antialiased; colours are laid over what is there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from retrieval.data.demo.people import Person, Shot, sample_person, sample_shot
from retrieval.data.demo.portrait import landmarks
from retrieval.data.demo.surface import bump, coordinates, cover, paint, paint_over, shaded

UNIT, CENTRE, WINDOW = 40.0, (80.0, 90.0), (0, 0, 160, 180)


def somebody(**pose: float) -> tuple[Person, Shot]:
    person = dataclasses.replace(sample_person(0, 0), width=1.0)
    still = {"yaw": 0.0, "pitch": 0.0, "roll": 0.0} | pose
    return person, dataclasses.replace(sample_shot(0, 0, 0, person), **still)


def test_without_a_pose_coordinates_are_pixels_from_between_the_eyes_in_units() -> None:
    face = coordinates(*somebody(), WINDOW, CENTRE, UNIT)
    assert face.x.shape == face.y.shape == face.u.shape == (180, 160)
    assert (face.x[90, 80], face.y[90, 80]) == (0, 0)
    assert (face.x[90, 100], face.y[110, 80]) == (0.5, 0.5)  # to the right, and down
    inside = np.abs(face.x) < 0.99
    assert np.allclose(face.u[inside], face.x[inside], atol=1e-5) and np.allclose(face.v, face.y)
    assert np.array_equal(face.au, np.abs(face.u)) and face.centre == CENTRE
    aside = coordinates(*somebody(), (30, 40, 160, 180), CENTRE, UNIT)
    assert aside.centre == (50, 50) and np.array_equal(aside.x, face.x[40:, 30:])


@pytest.mark.parametrize(
    "pose", [{"yaw": 0.3}, {"yaw": -0.3}, {"pitch": 0.1}, {"roll": 0.2}, {"yaw": 0.2, "roll": -0.1}]
)
def test_coordinates_undo_what_the_pose_does_to_landmarks(pose: dict[str, float]) -> None:
    """Where the eyes and the mouth's corners are said to be, the surface has their coordinates."""
    person, shot = somebody(**pose)
    shot = dataclasses.replace(shot, scale=1.0, shift=(0.0, 0.0), smile=0.0)
    size = (178, 218)
    centre, unit = (178 / 2, 111.0), 46.0
    face = coordinates(person, shot, (0, 0, *size), centre, unit)
    gap, mouth = person.eye_gap, person.nose_length + person.mouth_drop
    wanted = [(-gap, 0.0), (gap, 0.0), (-person.mouth_width, mouth), (person.mouth_width, mouth)]
    found = [point for at, point in enumerate(landmarks(person, shot, size)) if at != 2]  # the nose stands out
    for (x, y), (u, v) in zip(found, wanted, strict=True):
        at = round(y), round(x)
        assert face.u[at] == pytest.approx(u, abs=0.03) and face.v[at] == pytest.approx(v, abs=0.03)


def test_a_part_is_a_window_in_units_cut_at_the_border() -> None:
    face = coordinates(*somebody(), WINDOW, CENTRE, UNIT)
    (rows, columns), part = face.part(-1.0, -0.5, 0.5, 1.0)
    assert (rows, columns) == (slice(70, 130), slice(40, 100))
    assert np.array_equal(part.x, face.x[rows, columns]) and part.x[20, 40] == part.y[20, 40] == 0
    assert part.centre == (40, 20)
    (rows, columns), _ = face.part(-9, -9, 9, 9)
    assert (rows, columns) == (slice(0, 180), slice(0, 160))


def test_a_bump_is_one_in_its_middle_and_falls_as_gauss_says() -> None:
    x, y = np.array([0, 0.2, 0.0, 0.2], np.float32), np.array([0, 0.0, 0.5, 0.5], np.float32)
    assert bump(x, y, 0.2, 0.5) == pytest.approx([1, np.exp(-1), np.exp(-1), np.exp(-2)])


def test_an_outline_is_covered_by_half_and_soft_by_a_pixel() -> None:
    inside = np.array([-0.1, -0.05, 0, 0.025, 0.05, 0.1], np.float32)
    assert cover(inside, 10.0) == pytest.approx([0, 0, 0.5, 0.75, 1, 1])
    assert cover(inside, 10.0, 2) == pytest.approx([0, 0.25, 0.5, 0.625, 0.75, 1])


def test_colours_are_laid_over_in_place() -> None:
    canvas = np.full((3, 1, 4), 0.5, np.float32)
    mask = np.array([[0, 0.5, 1, 1]], np.float32)
    paint(canvas, mask, (1.0, 0.0, 0.5))
    assert pytest.approx(np.array([[0.5] * 3, [0.75, 0.25, 0.5], [1, 0, 0.5], [1, 0, 0.5]])) == canvas[:, 0].T
    paint(canvas, mask, (0.0, 0.0, 0.0), 0.5)
    assert canvas[:, 0, 2].tolist() == [0.5, 0, 0.25] and canvas[0, 0, 1] == pytest.approx(0.75 * 0.75)
    paint_over(canvas, mask, np.arange(12, dtype=np.float32).reshape(3, 1, 4))
    assert canvas[:, 0, 3].tolist() == [3, 7, 11] and canvas[0, 0, 0] == 0.5
    assert shaded((0.5, 1.0, 0.0), np.array([[1.0, 0.5]], np.float32))[:, 0].tolist() == [[0.5, 0.25], [1, 0.5], [0, 0]]
