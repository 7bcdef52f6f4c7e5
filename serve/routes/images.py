"""Images of the gallery: listed, shown one by one, added, deleted."""

# No `from __future__ import annotations`: FastAPI reads the annotations as types.
import asyncio
import hashlib
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

from retrieval.images import pixels
from retrieval.live.filters import Filter
from retrieval.live.folding.erasure import erase
from retrieval.live.store import ReadOnly
from serve.edge import Refusal
from serve.engine.filtering import filter_of, info_of
from serve.engine.version import Version
from serve.routes.search import ERRORS, JPEG, filter_from, prefix_of
from serve.schemas import ImageInfo, ImagePage, Receipt
from serve.service import Service

Made = TypeVar("Made")

_PAGE = 100
_MOST_DELETED = 100_000

SENT = {**ERRORS, 200: {"content": {"application/octet-stream": {}}, "description": "A photo as it was sent."}}


def add(api: FastAPI, service: Service) -> None:
    """Adds the routes. The shorter address comes last: it takes everything."""

    @api.get("/v1/images", responses=ERRORS, tags=["images"])
    async def images(
        request: Request,
        after: Annotated[str | None, Query(max_length=1024, description="Last image_id of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = _PAGE,
        filter: Annotated[str | None, Query(description="A Filter as JSON", max_length=65536)] = None,
    ) -> ImagePage:
        """A page of the gallery, by image_id."""
        version, wanted = service.versions.current, filter_of(None if filter is None else filter_from(filter))
        return await asyncio.to_thread(_page, version, after, limit, wanted, prefix_of(request))

    @api.delete("/v1/images", responses=ERRORS, tags=["images"])
    async def delete_label(label: Annotated[str, Query(min_length=1, max_length=1024)]) -> Receipt:
        """Erase all images of an identity."""
        version = service.versions.current
        found = await asyncio.to_thread(version.gallery.image_ids, Filter(label=(label,)))
        if not found:
            raise Refusal("not-found", "No image of the gallery has this label.")
        if len(found) > _MOST_DELETED:
            raise Refusal("bad-parameter", f"{len(found)} images have this label: more than one request deletes.")
        return await _erase(version, sorted(found))

    @api.get("/v1/images/{image_id:path}/thumbnail", response_class=Response, responses=JPEG, tags=["images"])
    async def thumbnail(
        request: Request,
        image_id: str,
        size: Annotated[int | None, Query(ge=16, le=1024, description="Longer side at most, pixels.")] = None,
    ) -> Response:
        """The stored crop, JPEG."""
        version = service.versions.current
        jpeg = await _found(version.gallery.jpeg, image_id)
        etag = hashlib.sha256(jpeg).hexdigest()[:32] + ("" if size is None else f"-{size}")
        if size is not None and not _is_known(request, etag):
            jpeg = await asyncio.to_thread(_shrunk, jpeg, size)
        return stored(jpeg, etag, request)

    @api.get("/v1/images/{image_id:path}/original", response_class=Response, responses=SENT, tags=["images"])
    async def original(image_id: str) -> Response:
        """The photo as it was sent, where it was kept."""
        photo = await _found(service.versions.current.gallery.original, image_id)
        if photo is None:
            raise Refusal("not-found", "The photo of this image was not kept as it was sent.")
        headers = {"Cache-Control": "private, no-store", "Content-Disposition": "attachment"}
        return Response(photo, media_type="application/octet-stream", headers=headers)

    @api.get("/v1/images/{image_id:path}", responses=ERRORS, tags=["images"])
    async def image(request: Request, image_id: str) -> ImageInfo:
        """What is known of an image."""
        version = service.versions.current
        entry = await _found(version.gallery.entry, image_id)
        return info_of(entry, version.gallery.people.names, prefix_of(request))

    @api.delete("/v1/images/{image_id:path}", responses=ERRORS, tags=["images"])
    async def delete(image_id: str) -> Receipt:
        """Erase an image."""
        return await _erase(service.versions.current, [image_id])


async def _found(ask: Callable[[str], Made], image_id: str) -> Made:
    """Raises: Refusal not-found."""
    try:
        return await asyncio.to_thread(ask, image_id)
    except KeyError as error:
        raise Refusal("not-found", "There is no such image in the gallery.") from error


async def _erase(version: Version, image_ids: list[str]) -> Receipt:
    try:
        told = await asyncio.to_thread(erase, version.gallery, image_ids)
    except KeyError as error:
        raise Refusal("not-found", "There is no such image in the gallery.") from error
    except ReadOnly as error:
        raise Refusal("read-only", str(error)) from error
    return Receipt.model_validate(told)


def _page(version: Version, after: str | None, limit: int, wanted: Filter | None, prefix: str) -> ImagePage:
    gallery, names = version.gallery, version.gallery.people.names
    live = gallery.refresh()
    entries, following = gallery.entries(after, limit, wanted)
    return ImagePage(
        images=[info_of(one, names, prefix) for one in entries],
        next=following,
        **version.says(live),
    )


def _shrunk(jpeg: bytes, size: int) -> bytes:
    """A stored crop, no side longer than `size`; one that is small enough as it is."""
    return jpeg if max(pixels.stored_size(jpeg)) <= size else pixels.encode_jpeg(pixels.decode_fit(jpeg, size))


def _is_known(request: Request, etag: str) -> bool:
    return request.headers.get("if-none-match") == f'"{etag}"'


def stored(jpeg: bytes, etag: str, request: Request) -> Response:
    """A stored JPEG, or 304. An address may mean another image in the next version, so browsers must ask."""
    headers = {"ETag": f'"{etag}"', "Cache-Control": "private, no-cache"}
    if _is_known(request, etag):
        return Response(status_code=304, headers=headers)
    return Response(jpeg, media_type="image/jpeg", headers=headers)
