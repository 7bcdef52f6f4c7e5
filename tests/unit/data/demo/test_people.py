"""People follow from the seed and their number, photos of them from the photo's number too."""

from __future__ import annotations

from retrieval.data.demo.people import sample_person, sample_shot


def test_another_seed_draws_other_people() -> None:
    assert sample_person(0, 0) != sample_person(1, 0)
    assert sample_person(0, 0) != sample_person(0, 1)
    person = sample_person(0, 0)
    assert sample_shot(0, 0, 0, person) != sample_shot(0, 0, 1, person)
