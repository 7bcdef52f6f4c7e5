"""What a person and a photo are said to have shows in the pixels, where it belongs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from retrieval.data.demo.attributes import attributes_of
from retrieval.data.demo.people import Person, Shot, sample_person, sample_shot
from retrieval.data.demo.portrait import background, landmarks, render
from tests.support import drawn

PLAIN = {"yaw": 0.0, "pitch": 0.0, "roll": 0.0, "scale": 1.0, "shift": (0.0, 0.0), "wears": frozenset(), "blur": 0.0}


def _plain(male: bool) -> tuple[Person, Shot]:
    """Somebody of medium tone with brown hair, straight on, in even light."""
    for identity in range(400):
        person = sample_person(0, identity)
        if (
            person.male == male
            and person.hair_name == "Brown_Hair"
            and person.beard == "none"
            and person.skin[0] > 0.75
        ):
            shot = dataclasses.replace(sample_shot(0, identity, 0, person), light=(0.0, 0.0, 1.0), tint=(1.0, 1.0, 1.0))
            return person, dataclasses.replace(
                shot, gain=1.0, gamma=1.0, stubble=0.0, mouth_open=0.0, noise=0.0, **PLAIN
            )
    raise AssertionError("nobody found")


# Attribute, who, how to give it to them, and the rows of the 178 x 218 photo where that must show.
SHOWS: list[tuple[str, bool, Callable[[Person, Shot], tuple[Person, Shot]], slice]] = [
    ("Eyeglasses", True, lambda p, s: (p, dataclasses.replace(s, wears=frozenset({"glasses"}))), slice(95, 130)),
    ("Wearing_Hat", True, lambda p, s: (p, dataclasses.replace(s, wears=frozenset({"hat"}))), slice(40, 95)),
    ("Bangs", False, lambda p, s: (p, dataclasses.replace(s, wears=frozenset({"bangs"}))), slice(75, 105)),
    (
        "Wearing_Lipstick",
        False,
        lambda p, s: (p, dataclasses.replace(s, wears=frozenset({"lipstick"}))),
        slice(140, 170),
    ),
    ("Smiling", True, lambda p, s: (p, dataclasses.replace(s, smile=0.9)), slice(100, 180)),
    ("Mouth_Slightly_Open", True, lambda p, s: (p, dataclasses.replace(s, mouth_open=0.9)), slice(145, 175)),
    ("Mustache", True, lambda p, s: (dataclasses.replace(p, beard="mustache"), s), slice(138, 160)),
    ("Goatee", True, lambda p, s: (dataclasses.replace(p, beard="goatee"), s), slice(155, 190)),
    ("5_o_Clock_Shadow", True, lambda p, s: (p, dataclasses.replace(s, stubble=0.7)), slice(135, 190)),
    ("Bald", True, lambda p, s: (dataclasses.replace(p, bald=True, hair_name=""), s), slice(40, 95)),
    (
        "Blond_Hair",
        False,
        lambda p, s: (dataclasses.replace(p, hair_name="Blond_Hair", hair=(0.8, 0.64, 0.36)), s),
        slice(20, 150),
    ),
    ("Bags_Under_Eyes", True, lambda p, s: (dataclasses.replace(p, bags=0.9), s), slice(110, 130)),
    ("Chubby", True, lambda p, s: (dataclasses.replace(p, chubby=1.1, width=p.width + 0.05), s), slice(100, 200)),
]


@pytest.mark.parametrize(("name", "male", "give", "rows"), SHOWS, ids=[case[0] for case in SHOWS])
def test_an_attribute_shows_where_it_belongs(
    name: str, male: bool, give: Callable[[Person, Shot], tuple[Person, Shot]], rows: slice
) -> None:
    person, shot = _plain(male)
    person = dataclasses.replace(person, bald=False, bags=0.0, chubby=0.0)
    shot = dataclasses.replace(shot, smile=0.0)
    other, other_shot = give(person, shot)
    assert not attributes_of(person, shot).get(name, False)
    assert attributes_of(other, other_shot)[name]
    change = np.abs(render(person, shot, (178, 218)).astype(int) - render(other, other_shot, (178, 218)))
    assert change[rows].max() > 40
    assert change[rows].sum() > 0.6 * change.sum()


def test_landmarks_follow_the_pose() -> None:
    person, shot = _plain(male=False)
    straight = np.array(landmarks(person, shot, (178, 218)))
    moved = dataclasses.replace(shot, shift=(0.2, 0.1), roll=0.1, yaw=0.15)
    image = cv2.cvtColor(render(person, moved, (178, 218)), cv2.COLOR_RGB2GRAY)
    points = np.array(landmarks(person, moved, (178, 218)))
    cheek = image[int(points[2, 1]) - 4, int(points[0, 0])]
    for x, y in points[:2].round().astype(int):
        # A dark pupil or iris within 3 pixels of where the eye is said to be.
        assert image[y - 3 : y + 4, x - 3 : x + 4].min() < 0.5 * cheek
    assert np.allclose(straight[[0, 3], 0] + straight[[1, 4], 0], 178)
    assert straight[0, 0] < straight[2, 0] < straight[1, 0] and straight[3, 0] < straight[2, 0] < straight[4, 0]
    assert points[1, 1] - points[0, 1] > 2
    assert points[2, 0] - straight[2, 0] > 9


def test_portraits_are_drawn_as_they_were_when_figures_were_measured_on_them() -> None:
    with Image.open(drawn.PICTURE) as picture:
        before = np.asarray(picture)[:73].astype(int)
    change = np.abs(drawn.portraits() - before)
    assert change.mean() < 0.5 and np.percentile(change, 99.5) <= 6


def test_a_backdrop_follows_from_its_seed_and_has_the_size_asked_for() -> None:
    one, same, other = (background(np.random.default_rng(seed), (90, 120)) for seed in (0, 0, 1))
    assert one.shape == (3, 120, 90) and one.dtype == np.float32 and 0.02 <= one.min() < one.max() <= 0.98
    assert np.array_equal(one, same) and np.abs(one - other).mean() > 0.05


def test_a_photo_follows_from_its_own_scene_seed() -> None:
    person, shot = _plain(male=True)
    one, other = (render(person, dataclasses.replace(shot, scene_seed=seed), (178, 218)) for seed in (1, 2))
    change = np.abs(one.astype(int) - other).mean(axis=2)
    assert change[:30].mean() > 10  # another backdrop
    assert change[100:150, 70:110].mean() < 10  # the same face


@pytest.mark.parametrize("size", [(178, 218), (89, 109), (300, 200), (200, 300)])
def test_a_face_of_any_size_of_photo_is_where_its_landmarks_are(size: tuple[int, int]) -> None:
    person, shot = _plain(male=False)
    picture, points = render(person, shot, size), np.array(landmarks(person, shot, size))
    assert picture.shape == (size[1], size[0], 3) and picture.dtype == np.uint8
    scale = min(size[0], size[1] * 178 / 218) / 178
    usual = np.array(landmarks(person, shot, (178, 218)))
    assert np.allclose(np.diff(points, axis=0), scale * np.diff(usual, axis=0))
    assert points[:2, 1].mean() == pytest.approx(111 / 218 * size[1], abs=1)


def test_a_camera_s_exposure_blur_and_noise_are_seen() -> None:
    person, shot = _plain(male=True)

    def taken(**settings: Any) -> np.ndarray:
        return render(person, dataclasses.replace(shot, **settings), (178, 218)).astype(float)

    plain = taken()
    assert taken(gain=1.3).mean() > 1.1 * plain.mean() and taken(gamma=1.5).mean() < 0.9 * plain.mean()
    warm = taken(tint=(1.2, 1.0, 0.8))
    assert warm[..., 0].mean() > plain[..., 0].mean() + 5 and warm[..., 2].mean() < plain[..., 2].mean() - 5
    assert np.abs(np.diff(taken(blur=2.0), axis=1)).mean() < 0.8 * np.abs(np.diff(plain, axis=1)).mean()
    noise = taken(noise=0.05) - plain
    assert 0.02 * 255 < noise.std() < 0.08 * 255 and abs(noise.mean()) < 2
    assert np.allclose(taken(blur=0.2), plain)


def test_what_is_worn_has_its_own_colour() -> None:
    person, shot = _plain(male=True)
    for name, part, colour, rows in (
        ("hat", "hat", (0.1, 0.2, 0.9), slice(40, 80)),
        ("necktie", "cloth", (0.1, 0.2, 0.9), slice(200, 218)),
    ):
        worn = dataclasses.replace(shot, wears=frozenset({name}), **{part: colour})
        middle = render(person, worn, (178, 218))[rows, 60:118].reshape(-1, 3).mean(axis=0)
        assert middle[2] > middle[0] + 20, name
