"""CelebA's attributes are true of somebody and of nobody else."""

from __future__ import annotations

from retrieval.data.demo.attributes import attributes_of
from retrieval.data.demo.people import sample_person, sample_shot
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
