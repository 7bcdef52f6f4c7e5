"""A filter of the API is the same filter of the gallery."""

from __future__ import annotations

from datetime import UTC, datetime

from retrieval.live.entries import Entry
from retrieval.live.filters import Filter
from serve import schemas
from serve.engine.filtering import filter_of, info_of, thumbnail_of

AT = datetime(2026, 3, 1, tzinfo=UTC)


def test_every_field_arrives() -> None:
    told = {
        "label": ["ada"],
        "split": ["query", "gallery"],
        "person": [3],
        "folder": ["a"],
        "attributes": {"hat": 1, "beard": -1},
        "added_after": AT,
        "added_before": AT,
        "image_id": ["1"],
    }
    assert set(told) == set(schemas.Filter.model_fields)
    assert filter_of(schemas.Filter.model_validate(told)) == Filter(
        label=("ada",),
        split=("query", "gallery"),
        person=(3,),
        folder=("a",),
        attributes=(("beard", -1), ("hat", 1)),
        added_after=AT,
        added_before=AT,
        image_id=("1",),
    )


def test_a_filter_that_asks_nothing_is_none() -> None:
    assert filter_of(None) is None and filter_of(schemas.Filter()) is None


def test_an_image_in_the_words_of_the_api() -> None:
    entry = Entry(
        image_id="a/b c#1.jpg",
        label="ada",
        split="gallery",
        person=3,
        attributes={"hat": 1},
        added=AT,
        where="live",
        photo="a/b c#1.jpg",
        face=None,
        width=4,
        height=5,
        original=True,
    )
    told = info_of(entry, {3: "Ada"}, "/below")
    assert told.thumbnail == thumbnail_of("a/b c#1.jpg", "/below") == "/below/v1/images/a%2Fb%20c%231.jpg/thumbnail"
    assert (told.person, told.person_name, told.attributes, told.added) == (3, "Ada", {"hat": 1}, AT)
    assert (told.where, told.original, told.width, told.height) == ("live", True, 4, 5)
