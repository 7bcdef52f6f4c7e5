"""Corrections of people: what is said once holds over the groups that are found next."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.grouping.corrections import (
    FIRST_SPLIT,
    Correction,
    Merge,
    Name,
    People,
    Split,
    correction_from_json,
    correction_to_json,
    read_people,
)
from tests.support import grouped
from tests.unit.grouping.test_people import group, numbers

FOUND = {"a": (1, 0.9), "b": (1, 0.8), "c": (1, 0.95), "d": (2, 0.5), "e": (2, 0.6), "f": (3, 0.1), "g": (3, 0.2)}


def named() -> People:
    return People.of(FOUND, [Name(person=1, name="Ada"), Name(person=2, name="Grace")])


def test_people_are_what_was_found() -> None:
    people = People.of(FOUND)
    assert len(people) == 3
    assert people.largest_first() == [1, 2, 3]
    assert people.photos_of(1) == ["a", "b", "c"]
    assert people.cover_of(1) == ["c", "a", "b"]
    assert [people.person_of(one) for one in "adx"] == [1, 2, None]
    assert people.name_of(1) is None
    assert people.name_of(None) is None
    assert 3 in people
    assert 4 not in people
    with pytest.raises(KeyError):
        people.photos_of(4)


def test_a_cover_is_the_few_most_alike() -> None:
    people = People.of({str(number): (1, number / 10) for number in range(7)})
    assert people.cover_of(1) == ["6", "5", "4", "3"]


def test_a_merge_moves_all_photos_and_a_name_that_is_not_there_yet() -> None:
    people = named().corrected(Merge(person=2, into=1))
    assert people.photos_of(1) == ["a", "b", "c", "d", "e"]
    assert people.name_of(1) == "Ada"
    assert people.person_of("d") == 1
    assert 2 not in people
    assert people.name_of(2) is None
    assert people.num_photos(1) == 5
    other = named().corrected(Merge(person=2, into=3))
    assert other.name_of(3) == "Grace"
    assert other.largest_first() == [3, 1]


def test_a_split_is_a_new_person_with_a_number_nobody_has() -> None:
    people = named()
    new = people.next_split()
    assert new == FIRST_SPLIT
    after = people.corrected(Split(person=1, image_ids=("b", "c"), new=new))
    assert after.photos_of(1) == ["a"]
    assert after.photos_of(new) == ["b", "c"]
    assert after.name_of(1) == "Ada"
    assert after.name_of(new) is None
    assert after.next_split() == new + 1
    assert people.photos_of(1) == ["a", "b", "c"], "the one before is as it was"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Merge(person=1, into=1), "with itself"),
        (Merge(person=1, into=9), "no person 9"),
        (Merge(person=9, into=1), "no person 9"),
        (Name(person=9, name="x"), "no person 9"),
        (Split(person=9, image_ids=("a",), new=FIRST_SPLIT), "no person 9"),
        (Split(person=1, image_ids=("d",), new=FIRST_SPLIT), "'d' is no photo of person 1"),
        (Split(person=2, image_ids=("d", "e", "d"), new=FIRST_SPLIT), "nobody would be left"),
        (Split(person=1, image_ids=("a",), new=2), "a person 2 already"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(bad: Correction, said: str) -> None:
    people = named()
    with pytest.raises(ValueError, match=said):
        people.corrected(bad)
    assert people.photos_of(1) == ["a", "b", "c"]


def test_a_name_is_taken_away() -> None:
    people = named().corrected(Name(person=1, name=None))
    assert people.name_of(1) is None
    assert people.name_of(2) == "Grace"


def test_images_that_are_gone_are_in_no_group() -> None:
    people = named().without(["a", "d", "e", "x"])
    assert people.photos_of(1) == ["b", "c"]
    assert people.person_of("a") is None
    assert 2 not in people
    assert people.name_of(2) is None
    assert people.name_of(1) == "Ada"


def test_corrections_said_again_over_other_groups() -> None:
    """3 grew, 2 is gone because grouping found by itself that it was 1, and c left for 3."""
    said: list[Correction] = [
        Merge(person=3, into=1),
        Name(person=2, name="Grace"),
        Split(person=1, image_ids=("b", "c"), new=FIRST_SPLIT),
    ]
    now = {"a": (1, 0.9), "b": (1, 0.8), "d": (1, 0.5), "c": (4, 0.9), "f": (3, 0.1), "g": (3, 0.2), "h": (3, 0.3)}
    people = People.of(now, said)
    assert people.photos_of(1) == ["a", "d", "f", "g", "h"], "who is found with 3 later is 1 as well"
    assert people.photos_of(FIRST_SPLIT) == ["b"]
    assert people.photos_of(4) == ["c"], "it is not with 1 any more, so nothing has to be taken out"
    assert people.name_of(2) is None


def test_one_by_one_and_all_at_once_are_the_same() -> None:
    rng = random.Random(7)
    for _ in range(50):
        found = {f"i{number:02d}": (rng.randint(1, 6), rng.random()) for number in range(30)}
        people, said = People.of(found), list[Correction]()
        for _ in range(12):
            alive = people.largest_first()
            one = rng.choice(alive)
            what = rng.choice(["merge", "name", "split"])
            correction: Correction = Name(person=one, name=rng.choice(["x", "y", None]))
            if what == "merge" and len(alive) > 1:
                correction = Merge(person=one, into=rng.choice([other for other in alive if other != one]))
            elif what == "split" and people.num_photos(one) > 1:
                some = tuple(rng.sample(people.photos_of(one), rng.randint(1, people.num_photos(one) - 1)))
                correction = Split(person=one, image_ids=some, new=people.next_split())
            people = people.corrected(correction)
            said.append(correction)
        again = People.of(found, [correction_from_json(json.loads(json.dumps(correction_to_json(c)))) for c in said])
        assert again == people
        assert sorted(image_id for person in people.largest_first() for image_id in people.photos_of(person)) == sorted(
            found
        )
        assert all(people.person_of(one) in people for one in found)


@pytest.mark.parametrize("bad", [{}, {"what": "erase"}, {"what": "merge", "person": 1}, {"what": "name", "n": 1}])
def test_what_is_no_correction_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no correction"):
        correction_from_json(bad)


def test_groups_are_read_as_they_were_sealed(tmp_path: Path) -> None:
    photos = grouped.people(3, 3)
    group(tmp_path, photos)
    folder = Folder.of(tmp_path / "people")
    found = read_people(folder)
    assert {image_id: person for image_id, (person, _) in found.items()} == {
        image_id: person for image_id, person in numbers(folder).items() if person is not None
    }
    assert all(0.3 < score <= 1 for _, score in found.values())
