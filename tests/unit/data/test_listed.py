"""Photos and files that are sorted on disk are what sorted() and a dict make of them."""

from __future__ import annotations

import dataclasses
import posixpath
import random

import pytest

from retrieval.data import listed
from retrieval.data.listed import Counted, sort_files, sort_photos
from retrieval.data.source import Listing, Photo

NAMES = [
    "Z.jpg",
    "a.jpg",
    "\u00e9/1.jpg",
    "B/2.jpg",
    "a/b.jpg",
    "a/b/c.jpg",
    "\ufb00.jpg",
    "\U0001d4b3.jpg",
    "/x",
    "//y",
    "a//z",
]


def drawn(num: int) -> list[Photo]:
    """In no order, some of them twice."""
    draw = random.Random(3)
    photos = [
        Photo(
            image_id=name if number < len(NAMES) else f"{number % 7}/{number}.jpg",
            uri=f"{number}.jpg",
            size=draw.choice([-1, 5, 1 << 40]),
            label=draw.choice([None, "ada", "b\u00f6"]),
            split=draw.choice([None, "train"]),
            attributes=draw.choice([None, (1, -1) * 20]),
            box=draw.choice([None, (0.1, 2.0, 1 / 3, 4.5)]),
        )
        for number, name in zip(range(num), NAMES + [""] * num, strict=False)
    ]
    photos += [dataclasses.replace(photos[place], label="other") for place in (3, 9, 3)]
    draw.shuffle(photos)
    return photos


def plainly(photos: list[Photo]) -> tuple[list[Photo], Listing]:
    first, found = dict[str, Photo](), Listing()
    for photo in photos:
        if (kept := first.setdefault(photo.image_id, photo)) is not photo:
            found.repeated += 1
            if kept.label != photo.label:
                found.notes.append(f"{photo.image_id} is listed with two labels; the first, {kept.label}, is kept.")
    return [first[name] for name in sorted(first)], found


@pytest.mark.parametrize("at_once", [1, 4, 1000])
def test_photos_are_sorted_and_each_kept_once_as_it_was_first_listed(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(listed, "_AT_ONCE", at_once)
    photos, found = drawn(40), Listing()
    got, counted = sort_photos(iter(photos), found)
    expected, noticed = plainly(photos)
    assert list(got) == expected and found == noticed and len(got) == len(expected) == 40
    assert [got[row] for row in range(-40, 40)] == [*expected, *expected] and got[3:9] == expected[3:9]
    assert got == sort_photos(reversed([*reversed(expected)]), Listing())[0]
    assert counted == Counted(
        folders=len({posixpath.dirname(photo.image_id) for photo in expected}),
        missing=sum(photo.size < 0 for photo in expected),
        labels=len({photo.label for photo in expected} - {None}),
        unlabelled=sum(photo.label is None for photo in expected),
        without_attributes=sum(photo.attributes is None for photo in expected),
        without_box=sum(photo.box is None for photo in expected),
    )
    with pytest.raises(IndexError, match="Row 40 is not one of 40 photos"):
        got[40]


def test_of_two_photos_of_one_name_the_first_that_was_listed_is_told() -> None:
    a = Photo(image_id="a", uri="a.jpg", size=1, label="ann")
    z = dataclasses.replace(a, image_id="z")
    others = [dataclasses.replace(z, uri="z 2.jpg"), dataclasses.replace(a, uri="b.jpg")]
    with pytest.raises(ValueError, match=r"Two photos are called 'z': a.jpg and z 2.jpg.*column image_id"):
        sort_photos([a, z, *others], Listing())


@pytest.mark.parametrize("num", [0, 1, 9])
def test_files_are_a_mapping_in_order_of_their_paths(num: int) -> None:
    names = random.Random(num).sample(NAMES, num)
    sizes = {name: number for number, name in enumerate(names)}
    files = sort_files(iter(sizes.items()))
    assert list(files) == sorted(names) and dict(files.items()) == sizes and len(files) == num
    assert {name: files[name] for name in NAMES if name in files} == sizes
    assert "0" not in files and "zzz" not in files
