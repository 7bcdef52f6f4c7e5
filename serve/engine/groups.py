"""People and copies of the gallery as it is at this moment, in the words of the API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from retrieval.grouping.copies import Repeated, read_repeated
from retrieval.live.people import Members, People
from retrieval.live.view import GalleryView
from serve.edge import Refusal
from serve.engine.filtering import thumbnail_of
from serve.schemas import DuplicateGroup, Person

COVER = 4
"""Images that stand for a person."""


@dataclass(slots=True)
class _Kept:
    """What was worked out of a gallery at one moment."""

    members: tuple[People, Members] | None = None
    copies: tuple[int, list[Repeated]] | None = None


_KEPT: WeakKeyDictionary[GalleryView, _Kept] = WeakKeyDictionary()
"""Ends with the gallery: a version that was swapped out leaves nothing behind."""


def _kept(gallery: GalleryView) -> _Kept:
    return _KEPT.setdefault(gallery, _Kept())


@dataclass(frozen=True, slots=True)
class Groups:
    """Of one version; what was worked out is kept until something is changed."""

    gallery: GalleryView

    def members(self) -> Members:
        """Who there is now."""
        self.gallery.refresh()
        kept, people = _kept(self.gallery), self.gallery.people
        if kept.members is None or kept.members[0] is not people:  # it is a new one whenever anything was changed
            kept.members = people, Members(self.gallery.sealed.columns.ids, people)
        return kept.members[1]

    def person(self, number: int, prefix: str) -> Person:
        """Raises: Refusal not-found."""
        members = self.members()
        if number not in members:
            raise Refusal("not-found", f"There is no person {number}.")
        first = members.first(number, COVER)
        return Person(
            person=number,
            name=self.gallery.people.names.get(number),
            photos=members.count(number),
            cover=[thumbnail_of(image_id, prefix) for image_id in first],
            image_ids=first,
        )

    def page(self, after: str | None, limit: int, prefix: str) -> tuple[list[Person], str | None, int]:
        """People, those of most images first; where the next page begins; how many there are.

        Raises: Refusal bad-parameter for an `after` that is none.
        """
        everybody = self.members().largest_first()
        if after is not None:
            num, number = _place(after)
            everybody = [one for one in everybody if (-one[0], one[1]) > (-num, number)]
        page, more = everybody[:limit], len(everybody) > limit
        people = [self.person(number, prefix) for _, number in page]
        return people, f"{page[-1][0]}-{page[-1][1]}" if more else None, len(self.members())

    def check_split(self, number: int, image_ids: Sequence[str]) -> None:
        """Raises: Refusal bad-parameter for images of somebody else, or if nobody would be left."""
        for image_id in image_ids:
            try:
                found = self.gallery.entry(image_id).person
            except KeyError:
                found = None
            if found != number:
                raise Refusal("bad-parameter", f"image_ids: {image_id!r} is no image of person {number}.")
        if len(set(image_ids)) == self.members().count(number):
            raise Refusal("bad-parameter", f"image_ids: these are all images of person {number}.")

    def copies(self, after: str | None, limit: int, prefix: str) -> tuple[list[DuplicateGroup], str | None, int]:
        """Pictures that are there more than once, by their first image; the next page; how many there are."""
        kept, seq = _kept(self.gallery), self.gallery.refresh()
        if kept.copies is None or kept.copies[0] != seq:
            kept.copies = seq, _copies(self.gallery)
        found = kept.copies[1]
        rest = [one for one in found if after is None or one.image_ids[0] > after]
        page = [self._group(one, prefix) for one in rest[:limit]]
        return page, page[-1].image_ids[0] if len(rest) > limit else None, len(found)

    def _group(self, one: Repeated, prefix: str) -> DuplicateGroup:
        there = [thumbnail_of(name, prefix) if _is_there(self.gallery, name) else None for name in one.image_ids]
        return DuplicateGroup(image_ids=list(one.image_ids), how=one.how, likeness=one.likeness, thumbnails=there)


def _place(after: str) -> tuple[int, int]:
    num, _, number = after.partition("-")
    if not (num.isdecimal() and number.isdecimal() and after.isascii() and len(after) <= 30):
        raise Refusal(
            "bad-parameter", f"after: {after[:40]!r} is no place in the list; give `next` of the page before."
        )
    return int(num), int(number)


def _copies(gallery: GalleryView) -> list[Repeated]:
    """Those of which two are left. A copy byte for byte is not indexed: it goes with the image that it repeats."""
    found = []
    for one in read_repeated(gallery.pair.people, gallery.pair.collection):
        first, *copies = one.image_ids
        indexed = [name for name in copies if _is_there(gallery, name)]
        if _is_there(gallery, first):
            aside = [name for name in copies if gallery.sealed.columns.row_of(name) is None and name not in indexed]
            found.append(Repeated((first, *sorted([*indexed, *aside])), one.how, one.likeness))
        elif len(indexed) > 1:
            found.append(Repeated(tuple(indexed), one.how, one.likeness))
    return [one for one in found if len(one.image_ids) > 1]


def _is_there(gallery: GalleryView, image_id: str) -> bool:
    try:
        gallery.entry(image_id)
    except KeyError:
        return False
    return True
