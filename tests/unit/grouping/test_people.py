"""Groups as an artefact: every photo has its row, books balance, numbers go on, what does not fit is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Manifest, read_manifest
from retrieval.grouping import duplicates, people
from retrieval.grouping.links import LinkFinder
from retrieval.grouping.settings import GroupingConfig
from retrieval.grouping.threshold import Threshold
from tests.support import grouped
from tests.support.grouped import Photo, make_folders


def group(
    root: Path, photos: list[Photo], out: str = "people", previous: Folder | None = None, **settings: Any
) -> Manifest:
    """What the job does, here, without looking for copies."""
    where = make_folders(root, photos, model=settings.pop("model", "m"))
    value = settings.pop("threshold", 0.4)
    plan = people.plan_people(
        **where,
        out=Folder.of(root / out),
        config=GroupingConfig(**settings),
        threshold=Threshold(value=value, source="as set"),
        previous=previous,
    )
    assert people.begin_people(plan) is None
    find = LinkFinder(plan.index, plan.embeddings, plan.out, plan.config.neighbours, value)
    linked = [find(part) for part in range(-(-len(photos) // 7))]
    counts = people.write_people(plan, [str(row["name"]) for row in linked])
    people.write_duplicates(plan, 0)
    counts |= people.count_duplicates(plan.out)
    duplicates.remove_thumbnails(plan.out)
    sealed = people.seal_people(plan, counts, {str(row["name"]): str(row["sha256"]) for row in linked})
    assert people.begin_people(plan) == sealed
    return sealed


def numbers(folder: Folder) -> dict[str, int | None]:
    return {row["image_id"]: row["person"] for row in folder.read_table(people.PEOPLE).to_pylist()}


def by_person(photos: list[Photo], found: dict[str, int | None]) -> dict[str | None, set[int | None]]:
    out: dict[str | None, set[int | None]] = {}
    for one in photos:
        out.setdefault(one.label, set()).add(found[one.image_id])
    return out


def test_people_are_found_and_the_books_balance(tmp_path: Path) -> None:
    photos = grouped.people(5, 4)
    alone = dataclasses.replace(photos[0], image_id="alone.jpg", vector=-photos[0].vector)
    copy = dataclasses.replace(photos[3], image_id="z copy.jpg", copy_of=photos[3].image_id)
    hidden = dataclasses.replace(photos[3], image_id="z hidden.jpg", split="dropped")
    sealed = group(tmp_path, [*photos, alone, copy, hidden])
    found = numbers(Folder.of(tmp_path / "people"))
    assert list(found) == sorted(found) and len(found) == 23
    each = list(by_person(photos, found).values())
    assert len(each) == 5 and all({number} in each for number in range(1, 6))
    assert found["alone.jpg"] is None and found["z hidden.jpg"] is None
    assert found["z copy.jpg"] == found[photos[3].image_id], "a copy byte for byte is where the photo is"
    (book,) = sealed.books
    assert (book["taken"], book["kept"], book["rejected"]) == (23, 21, {"single": 1, "unembedded": 1})
    assert (sealed.counts["people"], sealed.counts["same_file"], sealed.counts["same_picture"]) == (5, 1, 0)
    rows = {row["image_id"]: row for row in Folder.of(tmp_path / "people").read_table(people.PEOPLE).to_pylist()}
    assert [rows[name]["role"] for name in ("alone.jpg", "z copy.jpg", "z hidden.jpg")] == [
        "single",
        "grouped",
        "unembedded",
    ]
    mine = [one.vector.astype(float) for one in photos if one.label == "p0"]
    assert rows[photos[0].image_id]["score"] == pytest.approx(np.mean([mine[0] @ other for other in mine[1:]]))
    assert rows["alone.jpg"]["score"] is None
    repeated = Folder.of(tmp_path / "people").read_table(people.DUPLICATES).to_pylist()
    assert repeated == [
        {"image_id": "z copy.jpg", "duplicate_of": photos[3].image_id, "how": "same file", "likeness": 1.0}
    ]


def test_the_largest_group_has_number_one_and_the_same_work_the_same_fingerprint(tmp_path: Path) -> None:
    photos = [one for one in grouped.people(4, 5) if one.label != "p2" or one.image_id > "photo 004.jpg"]
    extra = dataclasses.replace(photos[0], image_id="zz.jpg")
    first = group(tmp_path / "a", [*photos, extra])
    assert by_person(photos, numbers(Folder.of(tmp_path / "a/people")))[photos[0].label] == {1}
    assert group(tmp_path / "b", [*photos, extra]).fingerprint == first.fingerprint


def test_the_order_in_which_photos_lie_is_not_seen(tmp_path: Path) -> None:
    photos = grouped.people(6, 4)
    group(tmp_path / "a", photos)
    group(tmp_path / "b", [photos[n] for n in np.random.default_rng(0).permutation(24)])
    assert numbers(Folder.of(tmp_path / "a/people")) == numbers(Folder.of(tmp_path / "b/people"))


def test_numbers_stay_when_photos_are_added(tmp_path: Path) -> None:
    photos = grouped.people(8, 5)
    early = [one for number, one in enumerate(photos) if number % 5 < 3 and one.label != "p6"]
    group(tmp_path / "early", early)
    before = numbers(Folder.of(tmp_path / "early/people"))
    later = group(tmp_path / "late", photos, previous=Folder.of(tmp_path / "early/people"))
    after = numbers(Folder.of(tmp_path / "late/people"))
    assert {name: after[name] for name in before} == before
    assert by_person(photos, after)["p6"] == {8}
    assert (later.counts["kept"], later.counts["new"], later.counts["next_number"]) == (7, 1, 9)
    assert later.inputs["previous"] == read_manifest(Folder.of(tmp_path / "early/people")).fingerprint
    was = {
        row["image_id"]: row["was"] for row in Folder.of(tmp_path / "late/people").read_table(people.PEOPLE).to_pylist()
    }
    assert was == {one.image_id: before.get(one.image_id) for one in photos}


def test_who_was_together_stays_together_unless_all_is_to_be_found_anew(tmp_path: Path) -> None:
    photos = grouped.people(4, 4)
    wrong = [dataclasses.replace(one, vector=photos[0].vector) if one.label == "p1" else one for one in photos]
    group(tmp_path / "early", wrong)
    earlier = Folder.of(tmp_path / "early/people")
    settings: list[tuple[dict[str, Any], bool]] = [
        ({}, True),
        ({"keep": False}, False),
        ({"threshold": 0.41}, False),
        ({"model": "n"}, False),
    ]
    for number, (how, together) in enumerate(settings):
        made = group(tmp_path / f"late{number}", photos, previous=earlier, **how)
        found = by_person(photos, numbers(Folder.of(tmp_path / f"late{number}/people")))
        assert (found["p0"] == found["p1"]) is together
        assert made.counts["split"] == (not together)
        assert {1} in (found["p0"], found["p1"])


def test_copies_that_take_the_place_of_the_first_bear_its_number(tmp_path: Path) -> None:
    """Of equal bytes the first by name is indexed: a copy in a folder that comes earlier pushes the old one out."""
    photos = grouped.people(3, 3)
    group(tmp_path / "first", photos)
    earlier = Folder.of(tmp_path / "first/people")
    copies = [dataclasses.replace(photo, image_id=f"backup/{photo.image_id}") for photo in photos]
    pushed = [dataclasses.replace(photo, copy_of=f"backup/{photo.image_id}") for photo in photos]
    made = group(tmp_path / "late", [*copies, *pushed], previous=earlier)
    before, after = numbers(earlier), numbers(Folder.of(tmp_path / "late/people"))
    assert (made.counts["kept"], made.counts["new"], made.counts["gone"]) == (3, 0, 0)
    assert {name: after[name] for name in before} == before
    assert {name: after[f"backup/{name}"] for name in before} == before


def test_folders_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one, other = make_folders(tmp_path / "a", grouped.people(2, 3)), make_folders(tmp_path / "b", grouped.people(3, 3))
    settings: dict[str, Any] = {"out": Folder.of(tmp_path / "out"), "config": GroupingConfig()}
    settings["threshold"] = Threshold(value=0.4, source="as set")
    with pytest.raises(ValueError, match="The index .* was made with embeddings"):
        people.plan_people(**one | {"embeddings": other["embeddings"]}, **settings)
    with pytest.raises(ValueError, match="The index .* was made with collection"):
        people.plan_people(**one | {"collection": other["collection"]}, **settings)
    with pytest.raises(ValueError, match="expected a 'people'"):
        people.plan_people(**one, **settings, previous=other["index"])
    assert not (tmp_path / "out").exists()
