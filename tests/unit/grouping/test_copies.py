"""Pictures that are there more than once, read from the groups or from the catalog."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from retrieval.artifacts.folder import Folder
from retrieval.grouping.copies import Repeated, grouped, read_repeated
from tests.support.grouped import make_folders, people
from tests.unit.grouping.test_people import group


def test_copies_of_one_picture_are_one_group() -> None:
    rows = [("b", "a", "same file", 1.0), ("d", "c", "same picture", 0.98), ("e", "c", "same file", 1.0)]
    assert grouped(rows) == [
        Repeated(("a", "b"), "same file", 1.0),
        Repeated(("c", "d", "e"), "same picture", 0.98),
    ]
    assert grouped([]) == []


def test_a_copy_of_a_copy_is_with_the_first() -> None:
    assert grouped([("c", "b", "same file", 1.0), ("b", "a", "same picture", 0.99)]) == [
        Repeated(("a", "b", "c"), "same picture", 0.99)
    ]


def test_a_circle_ends() -> None:
    found = grouped([("a", "b", "same file", 1.0), ("b", "a", "same file", 1.0)])
    assert sorted(len(one.image_ids) for one in found) in ([2, 2], [3])


def test_with_groups_and_without(tmp_path: Path) -> None:
    photos = people(2, 3)
    copy = dataclasses.replace(photos[0], image_id="zz copy.jpg", copy_of=photos[0].image_id)
    group(tmp_path, [*photos, copy])
    told = read_repeated(Folder.of(tmp_path / "people"), Folder.of(tmp_path / "collection"))
    assert told == [Repeated((photos[0].image_id, "zz copy.jpg"), "same file", 1.0)]
    other = make_folders(tmp_path / "other", [*photos, copy])
    assert read_repeated(None, other["collection"]) == told
