"""What somebody says of the groups: these two are one person, this one is called Ada, these photos are somebody else's.

A correction is kept as what was said, not as what came of it, and said again over the groups that are found next. That
works because a group keeps its number when photos are added (numbering.py): a merge and a name go by number, a split
by image_id.

    >>> people = People.of({"a.jpg": (1, 0.9), "b.jpg": (1, 0.8), "c.jpg": (2, 0.7)})
    >>> people = people.corrected(Merge(person=2, into=1)).corrected(Name(person=1, name="Ada"))
    >>> people.photos_of(1), people.name_of(1)
    (['a.jpg', 'b.jpg', 'c.jpg'], 'Ada')
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc

from retrieval.artifacts.folder import Folder
from retrieval.grouping.settings import PEOPLE

FIRST_SPLIT = 1_000_000_000
"""People whom somebody split off are numbered from here: no group that is found ever has such a number."""
COVER = 4
"""Photos that stand for a person."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge:
    """All photos of one person are another's. `into` keeps its number, and its name if it has one."""

    person: int
    into: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Name:
    """What a person is called; None: nothing any more."""

    person: int
    name: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """These photos of a person are one other person, numbered `new`."""

    person: int
    image_ids: tuple[str, ...]
    new: int


Correction = Merge | Name | Split
_KINDS: dict[str, Callable[..., Correction]] = {"merge": Merge, "name": Name, "split": Split}


def correction_to_json(correction: Correction) -> dict[str, Any]:
    """Plain values, for whoever keeps it."""
    if isinstance(correction, Merge):
        return {"what": "merge", "person": correction.person, "into": correction.into}
    if isinstance(correction, Name):
        return {"what": "name", "person": correction.person, "name": correction.name}
    return {
        "what": "split",
        "person": correction.person,
        "image_ids": list(correction.image_ids),
        "new": correction.new,
    }


def correction_from_json(told: Mapping[str, Any]) -> Correction:
    """Raises: ValueError if it is none."""
    values = {name: tuple(value) if name == "image_ids" else value for name, value in told.items() if name != "what"}
    try:
        return _KINDS[told["what"]](**values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{dict(told)} is no correction of people.") from error


@dataclass(frozen=True, slots=True)
class People:
    """Who is with whom. Never changed: a correction makes another one."""

    _photos: dict[int, dict[str, float]]
    """Person -> image_id -> how alike it is to the others of its group, mean cosine."""
    _names: dict[int, str] = field(default_factory=dict)
    _person: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Mapping[str, tuple[int, float]], corrections: Iterable[Correction] = ()) -> People:
        """Args: found: image_id -> (person, mean cosine with the others of its group). corrections: in the order said;
        one that finds nobody any more changes nothing."""
        photos: dict[int, dict[str, float]] = defaultdict(dict)
        for image_id, (person, score) in found.items():
            photos[person][image_id] = score
        people = cls(dict(photos))
        for correction in corrections:
            people._apply(correction)
        return cls(people._photos, people._names, _by_image(people._photos))

    def corrected(self, correction: Correction) -> People:
        """The same, and this said as well. Raises: ValueError if it makes no sense of these people."""
        self._check(correction)
        people = People({person: dict(photos) for person, photos in self._photos.items()}, dict(self._names))
        people._apply(correction)
        return People(people._photos, people._names, _by_image(people._photos))

    def without(self, gone: Iterable[str]) -> People:
        """The same without some images: a person of whom none is left is gone as well."""
        away = set(gone)
        kept = {
            person: left
            for person, photos in self._photos.items()
            if (left := {image_id: score for image_id, score in photos.items() if image_id not in away})
        }
        names = {person: name for person, name in self._names.items() if person in kept}
        return People(kept, names, _by_image(kept))

    def __len__(self) -> int:
        return len(self._photos)

    def __contains__(self, person: object) -> bool:
        return person in self._photos

    def person_of(self, image_id: str) -> int | None:
        """None for an image that is in no group."""
        return self._person.get(image_id)

    def name_of(self, person: int | None) -> str | None:
        return None if person is None else self._names.get(person)

    def photos_of(self, person: int) -> list[str]:
        """By image_id. Raises: KeyError if there is no such person."""
        return sorted(self._photos[person])

    def cover_of(self, person: int) -> list[str]:
        """A few photos that are most like the person's others. Raises: KeyError."""
        photos = self._photos[person]
        return sorted(photos, key=lambda image_id: (-photos[image_id], image_id))[:COVER]

    def num_photos(self, person: int) -> int:
        return len(self._photos[person])

    def largest_first(self) -> list[int]:
        """All people, those of most photos first, then by number."""
        return sorted(self._photos, key=lambda person: (-len(self._photos[person]), person))

    def next_split(self) -> int:
        """A number that nobody has. Numbers of those who are gone are given again only if no later one is left."""
        return max([FIRST_SPLIT - 1, *self._photos]) + 1

    def _check(self, correction: Correction) -> None:
        mentioned = (correction.person, correction.into) if isinstance(correction, Merge) else (correction.person,)
        for person in mentioned:
            if person not in self._photos:
                raise ValueError(f"There is no person {person}.")
        if isinstance(correction, Merge) and correction.person == correction.into:
            raise ValueError(f"Person {correction.into} cannot be merged with itself.")
        if isinstance(correction, Split):
            photos, leaving = self._photos[correction.person], set(correction.image_ids)
            for image_id in correction.image_ids:
                if image_id not in photos:
                    raise ValueError(f"{image_id!r} is no photo of person {correction.person}.")
            if len(leaving) == len(photos):
                raise ValueError(f"These are all photos of person {correction.person}: nobody would be left.")
            if correction.new in self._photos:
                raise ValueError(f"There is a person {correction.new} already.")

    def _apply(self, correction: Correction) -> None:
        if isinstance(correction, Merge):
            moved = self._photos.pop(correction.person, {})
            name = self._names.pop(correction.person, None)
            if moved:
                self._photos.setdefault(correction.into, {}).update(moved)
            if name is not None and correction.into in self._photos:
                self._names.setdefault(correction.into, name)
        elif isinstance(correction, Name):
            self._names.pop(correction.person, None)
            if correction.name is not None and correction.person in self._photos:
                self._names[correction.person] = correction.name
        else:
            photos = self._photos.get(correction.person, {})
            leaving = {one: photos.pop(one) for one in correction.image_ids if one in photos}
            if leaving:
                self._photos.setdefault(correction.new, {}).update(leaving)
            if not photos:
                self._photos.pop(correction.person, None)


def _by_image(photos: Mapping[int, Mapping[str, float]]) -> dict[str, int]:
    return {image_id: person for person, some in photos.items() for image_id in some}


def read_people(folder: Folder) -> dict[str, tuple[int, float]]:
    """image_id -> (person, mean cosine with the others) of every photo that is in a group. Args: folder: sealed."""
    table = folder.read_table(PEOPLE, columns=["image_id", "person", "score"])
    table = table.filter(pc.is_valid(table["person"]))
    scores = pc.fill_null(table["score"], 0.0)
    places = zip(table["person"].to_pylist(), scores.to_pylist(), strict=True)
    return dict(zip(table["image_id"].to_pylist(), places, strict=True))
