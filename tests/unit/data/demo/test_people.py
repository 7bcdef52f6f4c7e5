"""People follow from the seed and their number, photos of them from the photo's number too."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from retrieval.data.demo.people import sample_person, sample_shot

PEOPLE = [sample_person(0, identity) for identity in range(400)]


def test_another_seed_draws_other_people() -> None:
    assert sample_person(0, 0) != sample_person(1, 0)
    assert sample_person(0, 0) != sample_person(0, 1)
    person = sample_person(0, 0)
    assert sample_shot(0, 0, 0, person) != sample_shot(0, 0, 1, person)


def test_a_photo_is_drawn_from_seed_person_and_number_and_always_the_same() -> None:
    person = sample_person(0, 0)
    shots = [sample_shot(*numbers, person) for numbers in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert len({shot.scene_seed for shot in shots}) == len({shot.yaw for shot in shots}) == 4
    assert sample_shot(0, 0, 1, person) == shots[3] and sample_person(0, 0) == person
    # A person's own draws and those of their first photo are no copies of each other.
    assert person.parting != shots[0].yaw and sample_person(0, 2).width != sample_person(2, 0).width


def test_men_and_women_differ_where_they_should_and_are_drawn_in_published_shares() -> None:
    men, women = ([p for p in PEOPLE if p.male == male] for male in (True, False))
    assert 0.38 < len(men) / len(PEOPLE) < 0.52 and 0.64 < np.mean([p.young for p in PEOPLE]) < 0.8
    assert np.mean([p.jaw for p in men]) > np.mean([p.jaw for p in women]) + 0.4
    assert np.mean([p.brow_height for p in men]) < np.mean([p.brow_height for p in women]) - 0.02
    assert all(p.beard == "none" and not p.bald and not p.sideburns and p.receding == 0 for p in women)
    assert max(p.hair_length for p in men) < 0.5 <= min(p.hair_length for p in women)
    assert all(p.habits["lipstick"] == p.habits["makeup"] == 0 for p in men)
    assert all(p.habits["necktie"] == 0 for p in women)
    assert {p.beard for p in men} == {"none", "goatee", "mustache", "full"}
    assert (
        np.mean([p.bags > 0.5 for p in PEOPLE if not p.young])
        > 0.5
        > np.mean([p.bags > 0.5 for p in PEOPLE if p.young])
    )


def test_the_bald_have_no_hair_and_the_dark_no_fair_hair_or_eyes() -> None:
    assert 10 <= sum(p.bald for p in PEOPLE) <= 40
    for person in PEOPLE:
        assert not person.bald or (person.hair_name == "" and person.receding == 0 and not person.sideburns)
        if person.skin[0] < 0.6:
            assert person.hair_name in ("Black_Hair", "Brown_Hair", "Gray_Hair", "")
        assert not person.pale or person.skin[0] > 0.85
    grey = [p.young for p in PEOPLE if p.hair_name == "Gray_Hair"]
    assert grey and not any(grey)


def test_nothing_is_so_far_out_that_a_face_falls_apart() -> None:
    """Draws are cut at two spreads, colours stay colours, light comes from in front and has length one."""
    assert all(0.94 - 2 * 0.055 <= p.width <= 0.99 + 2 * 0.055 + 0.05 * p.chubby + 1e-9 for p in PEOPLE)
    assert all(0.56 - 0.12 - 1e-9 <= p.nose_length <= 0.56 + 0.12 + 1e-9 for p in PEOPLE)
    assert max(p.nose_length for p in PEOPLE) > 0.67  # and are spread up to there
    shots = [sample_shot(0, at, 0, person) for at, person in enumerate(PEOPLE)]
    for shot in shots:
        assert abs(math.hypot(*shot.light) - 1) < 1e-9
        assert shot.light[2] > 0 and abs(shot.yaw) <= 0.34 and abs(shot.roll) <= 0.12 and abs(shot.pitch) <= 0.12
        assert all(0.02 <= part <= 1 for part in (*shot.cloth, *shot.hat, *shot.lipstick))
        assert 78 <= shot.quality <= 95 and 0 <= shot.blur <= 2.1 and 0 <= shot.noise <= 0.025
    assert max(abs(shot.yaw) for shot in shots) > 0.3 and max(shot.tint[0] for shot in shots) > 1.0
    assert 0.02 < np.mean([shot.blur > 1.5 for shot in shots]) < 0.12
    assert 0.4 < np.mean([shot.smile > 0.4 for shot in shots]) < 0.6
    assert 0.3 < np.mean([shot.mouth_open > 0 for shot in shots]) < 0.5


def test_habits_are_how_often_something_is_worn() -> None:
    person = dataclasses.replace(
        PEOPLE[0], bald=False, habits={"glasses": 0.85, "hat": 0.1, "bangs": 1.0, "necktie": 0.0}
    )
    worn = [sample_shot(0, 0, number, person).wears for number in range(300)]
    assert {name: sum(name in wears for wears in worn) for name in ("bangs", "necktie")} == {"bangs": 300, "necktie": 0}
    assert 0.8 < np.mean(["glasses" in wears for wears in worn]) < 0.9
    assert 0.05 < np.mean(["hat" in wears for wears in worn]) < 0.15
    bald = [sample_shot(0, 0, number, dataclasses.replace(person, bald=True)).wears for number in range(20)]
    assert not any("bangs" in wears for wears in bald)
    bearded = dataclasses.replace(person, male=True, beard="full")
    assert all(sample_shot(0, 0, number, bearded).stubble == 0 for number in range(50))
    shaven = [sample_shot(0, 0, number, dataclasses.replace(bearded, beard="none")).stubble for number in range(200)]
    assert 0.15 < np.mean([stubble > 0 for stubble in shaven]) < 0.35 and max(shaven) <= 0.8
