"""GET /v1/people and what somebody may say of them: merged, named, split. Said once, it holds for every grouping."""

# No `from __future__ import annotations`: FastAPI reads the annotations as types.
import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request

from retrieval.live.filters import Filter
from retrieval.live.people import MERGE, NAME, SPLIT, SPLIT_FROM
from retrieval.live.store import ReadOnly
from serve.edge import Refusal
from serve.engine.filtering import info_of
from serve.engine.groups import Groups
from serve.engine.version import Version
from serve.routes.search import ERRORS, prefix_of
from serve.schemas import MergeRequest, NameRequest, PeopleAfter, PeoplePage, PersonPhotos, SplitRequest
from serve.service import Service

MOST = 500
"""On one page."""
Number = Annotated[int, Path(ge=0, le=(1 << 31) - 1, description="Of the person.")]
After = Annotated[str | None, Query(max_length=4096, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=MOST, description="Most on a page.")]


def add(api: FastAPI, service: Service) -> None:
    """Adds the routes."""

    @api.get("/v1/people", responses=ERRORS, tags=["people"])
    async def people(request: Request, after: After = None, limit: Limit = 50) -> PeoplePage:
        """The people that were found, those of most photos first."""
        version, prefix = service.versions.current, prefix_of(request)
        found, following, total = await asyncio.to_thread(Groups(version.gallery).page, after, limit, prefix)
        return PeoplePage(people=found, next=following, total=total, **version.says())

    @api.get("/v1/people/{person}", responses=ERRORS, tags=["people"])
    async def person(request: Request, person: Number, after: After = None, limit: Limit = 50) -> PersonPhotos:
        """One person and a page of the photos."""
        version, prefix = service.versions.current, prefix_of(request)
        return await asyncio.to_thread(_photos, version, person, after, limit, prefix)

    @api.post("/v1/people/{person}/merge", responses=ERRORS, tags=["people"])
    async def merge(request: Request, person: Number, body: MergeRequest) -> PeopleAfter:
        """All photos of one person are another's, who keeps number and name."""
        version = service.versions.current
        if body.into == person:
            raise Refusal("bad-parameter", "into: a person cannot be merged with itself.")
        told = {"person": person, "into": body.into}
        return await _say(request, version, MERGE, told, [person, body.into], lambda _: [body.into])

    @api.post("/v1/people/{person}/name", responses=ERRORS, tags=["people"])
    async def name(request: Request, person: Number, body: NameRequest) -> PeopleAfter:
        """What a person is called."""
        version = service.versions.current
        return await _say(request, version, NAME, {"person": person, "name": body.name}, [person], lambda _: [person])

    @api.post("/v1/people/{person}/split", responses=ERRORS, tags=["people"])
    async def split(request: Request, person: Number, body: SplitRequest) -> PeopleAfter:
        """Some photos of a person are of somebody else: one new person."""
        version = service.versions.current
        await asyncio.to_thread(Groups(version.gallery).person, person, "")
        await asyncio.to_thread(Groups(version.gallery).check_split, person, body.image_ids)
        told = {"person": person, "image_ids": body.image_ids}
        return await _say(request, version, SPLIT, told, [person], lambda seq: [person, SPLIT_FROM + seq])


async def _say(
    request: Request,
    version: Version,
    kind: str,
    told: dict[str, Any],
    about: list[int],
    after: Callable[[int], list[int]],
) -> PeopleAfter:
    """Writes it down, and tells how the people are then.

    Args: about: numbers of who must be there. after: those to tell of, by the number of the change.

    Raises: Refusal not-found or read-only.
    """
    gallery, prefix = version.gallery, prefix_of(request)

    def work() -> PeopleAfter:
        groups = Groups(gallery)
        for number in about:
            groups.person(number, prefix)
        if gallery.store is None:
            raise Refusal("read-only", "This gallery cannot be changed: its workspace cannot be written.")
        try:
            seq = gallery.store.edit_people(kind, told)
        except ReadOnly as error:
            raise Refusal("read-only", str(error)) from error
        gallery.refresh()
        return PeopleAfter(people=[groups.person(number, prefix) for number in after(seq)], **version.says())

    return await asyncio.to_thread(work)


def _photos(version: Version, person: int, after: str | None, limit: int, prefix: str) -> PersonPhotos:
    told = Groups(version.gallery).person(person, prefix)
    entries, following = version.gallery.entries(after, limit, Filter(person=(person,)))
    images = [info_of(entry, version.gallery.people.names, prefix) for entry in entries]
    return PersonPhotos(
        person=person, name=told.name, photos=told.photos, images=images, next=following, **version.says()
    )
