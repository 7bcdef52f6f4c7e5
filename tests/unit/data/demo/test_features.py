"""Parts of a face lie where the person's measures put them, and are lit from where the light comes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from retrieval.data.demo.features import light, mouth_shape, outline, skin_of
from retrieval.data.demo.people import Person, Shot, sample_person, sample_shot
from retrieval.data.demo.surface import Face, coordinates

UNIT, CENTRE, WINDOW = 60.0, (90.0, 100.0), (0, 0, 180, 220)


def somebody(of_person: dict[str, Any] | None = None, **of_shot: Any) -> tuple[Face, Person, Shot]:
    """Identity 0 without anything worn, painted or grown; changed as asked."""
    bare = {"marks": (), "beard": "none", "sideburns": False, "chubby": 0.0, "young": True, "width": 1.0, "male": True}
    person = dataclasses.replace(sample_person(0, 0), **(bare | (of_person or {})))
    still = {"yaw": 0.0, "pitch": 0.0, "roll": 0.0, "wears": frozenset(), "stubble": 0.0, "smile": 0.0, "lids": 1.0}
    still |= {"mouth_open": 0.0, "gaze": 0.0, "light": (0.0, 0.0, 1.0), "brow_raise": 0.0}
    shot = dataclasses.replace(sample_shot(0, 0, 0, person), **(still | of_shot))
    return coordinates(person, shot, WINDOW, CENTRE, UNIT), person, shot


def skin(of_person: dict[str, Any] | None = None, **of_shot: Any) -> np.ndarray:
    return skin_of(*somebody(of_person, **of_shot), np.random.default_rng(0))


def at(u: float, v: float) -> tuple[int, int]:
    return round(CENTRE[1] + v * UNIT), round(CENTRE[0] + u * UNIT)


def changed(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, right, bottom, in units, of where two skins differ."""
    rows, columns = np.nonzero(np.abs(a - b).max(axis=0) > 0.07)
    x, y = (columns - CENTRE[0]) / UNIT, (rows - CENTRE[1]) / UNIT
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def test_an_outline_reaches_from_the_skull_to_the_chin_and_is_as_wide_as_the_person() -> None:
    face, person, _ = somebody({"chin": 1.4, "width": 0.9})
    inside = outline(face, person)
    for u, v, is_in in ((0, 1.38, True), (0, 1.43, False), (0.88, 0.05, True), (0.92, 0.05, False), (0, -1.25, True)):
        assert (inside[at(u, v)] > 0) == is_in, (u, v)
    assert inside[at(0, -1.3)] < 0.02
    assert np.allclose(inside[:, 1:], inside[:, :0:-1], atol=1e-5)  # about the column between the eyes
    jaws = [(outline(face, dataclasses.replace(person, jaw=jaw)) > 0).sum() for jaw in (2.0, 3.5)]
    assert jaws[0] < jaws[1]  # a squarer jaw


@pytest.mark.parametrize(("direction", "bright"), [((-0.7, 0.0, 0.7), (-0.6, 0.4)), ((0.7, 0.0, 0.7), (0.6, 0.4))])
def test_the_side_towards_the_light_is_brighter(
    direction: tuple[float, float, float], bright: tuple[float, float]
) -> None:
    shade, shine = light(*somebody(light=direction, ambient=0.4))
    dark = -bright[0], bright[1]
    assert shade[at(*bright)] > shade[at(*dark)] + 0.3
    assert shine.max() <= 1 and shine[at(*bright)] > shine[at(*dark)]
    above, _ = light(*somebody(light=(0.0, -0.7, 0.7)))
    assert above[at(0, -0.8)] > above[at(0, 1.3)]
    dim, _ = light(*somebody(light=direction, ambient=0.1))
    assert dim[at(*dark)] < shade[at(*dark)]


def test_a_nose_stands_out_and_casts_a_side_into_shadow() -> None:
    _, person, _ = somebody()
    shade, _ = light(*somebody(light=(-0.6, 0.0, 0.8)))
    bridge = 0.6 * person.nose_length
    assert shade[at(-0.08, bridge)] > shade[at(0.08, bridge)] + 0.1
    turned, _ = light(*somebody(light=(0.6, 0.0, 0.8)))
    assert np.abs(turned - shade[:, ::-1])[:, 1:-1].mean() < 0.03


def test_a_smile_widens_the_mouth_and_lifts_its_corners() -> None:
    _, person, shot = somebody({"mouth_width": 0.3})
    assert mouth_shape(person, shot) == (0.3, 0)
    assert mouth_shape(person, dataclasses.replace(shot, smile=1.0)) == pytest.approx((0.36, 0.105))


def test_marks_are_where_they_are_said_to_be() -> None:
    left, top, right, bottom = changed(skin(), skin({"marks": ((0.5, 0.7, 0.05),)}))
    assert (left + right) / 2 == pytest.approx(0.5, abs=0.02) and (top + bottom) / 2 == pytest.approx(0.7, abs=0.02)
    assert right - left < 0.12


def test_eyes_have_their_colour_and_look_where_they_look() -> None:
    _, person, _ = somebody({"eye_open": 0.11})
    green = skin({"eye_open": 0.11, "iris": (0.1, 0.9, 0.1)})
    left, top, right, bottom = changed(green, skin({"eye_open": 0.11, "iris": (0.9, 0.1, 0.1)}))
    assert (left + right) / 2 == pytest.approx(0, abs=0.02)  # both eyes
    assert right == pytest.approx(person.eye_gap + 0.098, abs=0.04) and -0.12 < top < bottom < 0.1
    aside = skin({"eye_open": 0.11, "iris": (0.1, 0.9, 0.1)}, gaze=1.0)
    greens = [np.nonzero((picture[1] > 0.5) & (picture[0] < 0.4))[1].mean() for picture in (green, aside)]
    assert greens[1] > greens[0] + 2  # both to the right
    narrow = skin({"eye_open": 0.05, "iris": (0.1, 0.9, 0.1)})
    assert ((narrow[1] > 0.5) & (narrow[0] < 0.4)).sum() < ((green[1] > 0.5) & (green[0] < 0.4)).sum()


@pytest.mark.parametrize(
    ("of_person", "of_shot", "window"),
    [
        ({"beard": "mustache"}, {}, (-0.5, 0.6, 0.5, 1.1)),
        ({"beard": "goatee"}, {}, (-0.4, 1.0, 0.4, 2.0)),
        ({"sideburns": True}, {}, (-1.5, -0.6, 1.5, 0.7)),
        ({"bags": 0.9}, {}, (-0.7, 0.0, 0.7, 0.35)),
        ({"brow_thick": 0.12}, {}, (-0.9, -0.6, 0.9, 0.0)),
        ({}, {"brow_raise": 0.1}, (-0.9, -0.7, 0.9, 0.0)),
        ({}, {"mouth_open": 1.0}, (-0.5, 0.75, 0.5, 1.3)),
        ({"young": False}, {}, (-0.8, -0.8, 0.8, -0.2)),
        ({"nose_width": 0.3}, {}, (-0.5, -0.3, 0.5, 0.95)),
    ],
)
def test_a_feature_changes_its_own_part_of_the_face_on_both_sides(
    of_person: dict[str, Any], of_shot: dict[str, Any], window: tuple[float, float, float, float]
) -> None:
    plain = {"bags": 0.0, "mouth_drop": 0.35, "nose_length": 0.56, "mouth_width": 0.33, "nose_width": 0.18}
    left, top, right, bottom = changed(skin(plain), skin(plain | of_person, **of_shot))
    assert window[0] <= left < right <= window[2] and window[1] <= top < bottom <= window[3], (left, top, right, bottom)
    assert left + right == pytest.approx(0, abs=0.1)


def test_women_have_no_beard_whatever_is_said_of_them() -> None:
    assert np.array_equal(skin({"male": False, "beard": "full"}), skin({"male": False}))


def test_lipstick_has_its_own_colour_and_makeup_more_than_that() -> None:
    blue: dict[str, Any] = {"lipstick": (0.1, 0.1, 0.9)}
    painted, made_up = skin(wears=frozenset({"lipstick"}), **blue), skin(wears=frozenset({"makeup"}), **blue)
    _, person, _ = somebody()
    lip = at(0.15, person.nose_length + person.mouth_drop + 0.05)
    for picture in (painted, made_up):
        assert picture[2][lip] > picture[0][lip] + 0.2
    assert np.abs(painted - skin(**blue))[:, : at(0, 0.7)[0]].max() < 1e-6
    assert np.abs(made_up - skin(**blue))[:, : at(0, 0.7)[0]].max() > 0.1
