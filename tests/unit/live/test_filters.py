"""What a filter means for one image, part by part."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from retrieval.live.entries import Entry
from retrieval.live.filters import Filter, allows

AT = datetime(2026, 3, 1, tzinfo=UTC)
ONE = Entry(
    image_id="a/b/1.jpg",
    label="ada",
    split="gallery",
    person=3,
    attributes={"hat": 1, "beard": -1},
    added=AT,
    where="live",
    photo="a/b/1.jpg",
    face=None,
    width=1,
    height=1,
)


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        (Filter(), True),
        (Filter(label=("bob", "ada")), True),
        (Filter(label=("bob",)), False),
        (Filter(label=("ada",), split=("query",)), False),
        (Filter(person=(3,)), True),
        (Filter(person=(4,)), False),
        (Filter(folder=("a",)), True),
        (Filter(folder=("a/b/",)), True),
        (Filter(folder=("a/b/1.jpg",)), False),
        (Filter(folder=("b",)), False),
        (Filter(attributes=(("hat", 1), ("beard", -1))), True),
        (Filter(attributes=(("hat", 1), ("beard", 1))), False),
        (Filter(attributes=(("glasses", 0),)), True),
        (Filter(attributes=(("glasses", 1),)), False),
        (Filter(added_after=AT), True),
        (Filter(added_before=AT), False),
        (Filter(image_id=("a/b/1.jpg",)), True),
        (Filter(image_id=("1.jpg",)), False),
    ],
)
def test_what_passes(wanted: Filter, passes: bool) -> None:
    assert allows(wanted, ONE) is passes


def test_what_was_not_added_has_no_time_and_who_is_nobody_is_no_person() -> None:
    sealed = replace(ONE, added=None, person=None, label=None)
    assert not allows(Filter(added_after=AT), sealed) and not allows(Filter(added_before=AT), sealed)
    assert not allows(Filter(person=(3,)), sealed) and not allows(Filter(label=("ada",)), sealed)


def test_only_an_empty_filter_is_empty() -> None:
    assert Filter().is_empty and not Filter(label=()).is_empty
    assert not allows(Filter(label=()), ONE)


def test_what_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="time with its zone"):
        Filter(added_after=datetime(2026, 3, 1))
    with pytest.raises(ValueError, match="hat is 2"):
        Filter(attributes=(("hat", 2),))
