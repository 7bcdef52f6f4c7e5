"""CelebA's attributes are true of somebody and of nobody else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from retrieval.data.demo.attributes import attributes_of
from retrieval.data.demo.people import Person, Shot, sample_person, sample_shot
from retrieval.data.layouts.celeba import ATTRIBUTES


def test_every_drawable_attribute_occurs_and_is_not_constant() -> None:
    num_shown = dict.fromkeys(ATTRIBUTES, 0)
    for identity in range(300):
        person = sample_person(0, identity)
        for shot in range(4):
            for name, shown in attributes_of(person, sample_shot(0, identity, shot, person)).items():
                num_shown[name] += shown
    assert num_shown.keys() == set(ATTRIBUTES)
    assert {name for name, count in num_shown.items() if count == 0} == {"Attractive"}
    assert max(num_shown.values()) < 0.9 * 1200
    assert 0.35 < num_shown["Male"] / 1200 < 0.55


def nobody() -> tuple[Person, Shot]:
    """Of whom no attribute is true but that they are beardless."""
    person = dataclasses.replace(
        sample_person(0, 0),
        male=False,
        young=False,
        pale=False,
        bald=False,
        beard="none",
        sideburns=False,
        hair_name="",
        hair_length=0.3,
        wave=0.0,
        receding=0.0,
        brow_arch=0.07,
        bags=0.5,
        lip_upper=0.08,
        lip_lower=0.085,
        nose_width=0.2,
        brow_thick=0.065,
        chubby=0.6,
        chin=1.4,
        width=1.0,
        jaw=2.5,
        cheek=0.8,
        eye_open=0.07,
    )
    shot = dataclasses.replace(
        sample_shot(0, 0, 0, person),
        wears=frozenset(),
        stubble=0.0,
        blur=1.5,
        smile=0.0,
        mouth_open=0.0,
        lids=1.0,
    )
    return person, shot


def shown(of_person: dict[str, Any], of_shot: dict[str, Any]) -> set[str]:
    person, shot = nobody()
    found = attributes_of(dataclasses.replace(person, **of_person), dataclasses.replace(shot, **of_shot))
    return {name for name, true in found.items() if true}


@pytest.mark.parametrize(
    ("of_person", "of_shot", "attributes"),
    [
        ({}, {}, "No_Beard"),
        ({"male": True}, {}, "Male No_Beard"),
        ({"young": True}, {}, "Young No_Beard"),
        ({"pale": True}, {}, "Pale_Skin No_Beard"),
        ({"bald": True, "hair_length": 1.0, "receding": 0.5}, {}, "Bald No_Beard"),
        ({"beard": "goatee"}, {}, "Goatee"),
        ({"beard": "mustache"}, {}, "Mustache"),
        ({"beard": "full"}, {}, "Goatee Mustache Sideburns"),
        ({"sideburns": True}, {}, "Sideburns No_Beard"),
        ({}, {"stubble": 0.5}, "5_o_Clock_Shadow"),
        ({"hair_name": "Blond_Hair"}, {}, "Blond_Hair No_Beard"),
        ({"hair_length": 0.5}, {}, "Straight_Hair No_Beard"),
        ({"hair_length": 0.5, "wave": 0.5}, {}, "Wavy_Hair No_Beard"),
        ({"hair_length": 0.49, "wave": 0.5}, {}, "No_Beard"),
        ({"receding": 0.5}, {}, "Receding_Hairline No_Beard"),
        ({"receding": 0.5}, {"wears": {"bangs"}}, "Bangs No_Beard"),
        ({"hair_name": "Gray_Hair", "hair_length": 1.0, "receding": 0.5}, {"wears": {"hat"}}, "Wearing_Hat No_Beard"),
        ({"brow_arch": 0.071}, {}, "Arched_Eyebrows No_Beard"),
        ({"brow_thick": 0.066}, {}, "Bushy_Eyebrows No_Beard"),
        ({"bags": 0.51}, {}, "Bags_Under_Eyes No_Beard"),
        ({"lip_upper": 0.081}, {}, "Big_Lips No_Beard"),
        ({"nose_width": 0.216}, {}, "Big_Nose No_Beard"),
        ({"nose_width": 0.164}, {}, "Pointy_Nose No_Beard"),
        ({"chubby": 0.61}, {}, "Chubby No_Beard"),
        ({"chubby": 0.81}, {}, "Chubby Double_Chin No_Beard"),
        ({"chin": 1.47}, {}, "Oval_Face No_Beard"),
        ({"chin": 1.47, "jaw": 2.6}, {}, "No_Beard"),
        ({"cheek": 0.81}, {}, "High_Cheekbones No_Beard"),
        ({"cheek": 0.6}, {"smile": 0.6}, "High_Cheekbones Smiling No_Beard"),
        ({}, {"smile": 0.4}, "High_Cheekbones No_Beard"),
        ({"cheek": 0.5}, {"smile": 0.41}, "Smiling No_Beard"),
        ({"eye_open": 0.069}, {}, "Narrow_Eyes No_Beard"),
        ({}, {"lids": 0.9}, "Narrow_Eyes No_Beard"),
        ({}, {"blur": 1.51}, "Blurry No_Beard"),
        ({}, {"mouth_open": 0.1}, "Mouth_Slightly_Open No_Beard"),
        ({}, {"wears": {"glasses"}}, "Eyeglasses No_Beard"),
        ({}, {"wears": {"makeup"}}, "Heavy_Makeup Rosy_Cheeks Wearing_Lipstick No_Beard"),
        ({}, {"wears": {"lipstick"}}, "Wearing_Lipstick No_Beard"),
        ({}, {"wears": {"earrings", "necklace"}}, "Wearing_Earrings Wearing_Necklace No_Beard"),
        ({}, {"wears": {"necktie"}}, "Wearing_Necktie No_Beard"),
    ],
)
def test_an_attribute_begins_where_it_is_said_to(
    of_person: dict[str, Any], of_shot: dict[str, Any], attributes: str
) -> None:
    assert shown(of_person, of_shot) == set(attributes.split())
