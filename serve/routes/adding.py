"""POST /v1/images: photos become images of the gallery, on disk before it is answered."""

# No `from __future__ import annotations`: FastAPI reads the annotations as types.
import asyncio
import hashlib
import re
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import numpy as np
from fastapi import FastAPI, Query, Request
from pydantic import ValidationError

from retrieval.images import pixels
from retrieval.live.rows import NewImage, unknown_attributes
from retrieval.live.store import ReadOnly
from serve import edge
from serve.edge import STATUS, Refusal, refuse_photo
from serve.engine.version import Version
from serve.forms import is_form
from serve.guard import charge
from serve.photos.messages import Looked, PreparedFace, Unusable
from serve.routes.bodies import FILE, checked_photo, photo_body, read_photos
from serve.routes.search import ERRORS
from serve.schemas import AddAnswer, AddedItem, AddItem, AddOptions, ErrorDetail
from serve.service import Service

_STATUS = {"added": 201, "same": 200}
_NAME = re.compile(r"[^\x00-\x1f\x7f#\\/][^\x00-\x1f\x7f#\\]{0,1023}")
_BODY = photo_body({"photo": {"type": "array", "items": FILE}, "options": {"$ref": "#/components/schemas/AddOptions"}})


@dataclass(frozen=True, slots=True)
class _Sent:
    """A photo and what is said of it."""

    photo: bytes
    item: AddItem


@dataclass(frozen=True, slots=True)
class _How:
    """What is asked of all photos of a request."""

    faces: Literal["best", "all"]
    keep_original: bool
    replace: bool


def add(api: FastAPI, service: Service) -> None:
    """Adds the route."""

    @api.post("/v1/images", responses=ERRORS, openapi_extra={"requestBody": _BODY}, tags=["images"])
    async def add_images(
        request: Request,
        image_id: Annotated[str | None, Query(max_length=1024, description="Name of a photo that is the body.")] = None,
        label: Annotated[str | None, Query(min_length=1, max_length=1024, description="Of that photo.")] = None,
        keep_original: Annotated[bool, Query(description="Keep photos as they were sent, beside their crops.")] = False,
        faces: Annotated[Literal["best", "all"], Query(description="all: each face is an image, ID#NUMBER.")] = "best",
        replace: Annotated[bool, Query(description="Take the place of another photo of the same name.")] = False,
    ) -> AddAnswer:
        """Add a photo (the body), or every part `photo` of a form; the file's name is the image_id unless told."""
        version = service.versions.current
        if version.gallery.store is None:
            raise Refusal("read-only", "This gallery cannot be changed: its workspace cannot be written.")
        service.check_room()
        sent = await _read(service, request, image_id, label)
        charge(request, len(sent))
        if faces == "all" and not version.config.looks:
            raise Refusal("bad-parameter", "faces: this gallery is of whole photos, in which no face is looked for.")
        how = _How(faces=faces, keep_original=keep_original, replace=replace)
        async with service.place():
            items = await _add_all(service, version, sent, how)
            live = await asyncio.to_thread(version.gallery.refresh)
        if not is_form(request.headers.get("content-type")) and items[0].error is not None:
            again = {"Retry-After": "1"} if items[0].status == STATUS["unavailable"] else None
            raise Refusal(items[0].error.reason, items[0].error.message, again)
        return AddAnswer(
            items=items,
            added=sum(item.status == 201 for item in items),
            **version.says(live),
        )


async def _read(service: Service, request: Request, image_id: str | None, label: str | None) -> list[_Sent]:
    """Raises: Refusal for a body that is no photo and no form, or names that cannot be given."""
    args, kind = service.args, request.headers.get("content-type")
    if not is_form(kind):
        edge.check_media_type(kind)
        item = AddItem(image_id=_name(image_id), label=label)
        return [_Sent(await service.uploads.read(request, args.max_body_bytes), item)]
    photos, told = await read_photos(service.uploads, request, args)
    try:
        items = AddOptions.model_validate(told).items or [AddItem() for _ in photos]
    except ValidationError as error:
        raise Refusal("bad-parameter", edge.said_of(error.errors())) from error
    if len(items) != len(photos):
        raise Refusal("bad-parameter", f"items: {len(items)} for {len(photos)} photos; they must be one for each.")
    named = [
        item.model_copy(update={"image_id": _name(item.image_id or part.filename)})
        for item, part in zip(items, photos, strict=True)
    ]
    names = [item.image_id for item in named]
    if unknown := [name for item in named for name in unknown_attributes(item.attributes)]:
        raise Refusal("bad-parameter", f"attributes: {unknown[0]!r} is none of CelebA's 40, for example Wearing_Hat.")
    if len(set(names)) != len(names):
        raise Refusal("bad-parameter", "image_id: two photos of the form have one name.")
    return [_Sent(checked_photo(part, args.max_body_bytes), item) for part, item in zip(photos, named, strict=True)]


def _name(image_id: str | None) -> str:
    """Raises: Refusal bad-parameter for what is no relative path, or ends like the face of a photo."""
    if image_id is None:
        raise Refusal("bad-parameter", "image_id: the photo has no name. Give one, for example ?image_id=ada/3.jpg.")
    if not _NAME.fullmatch(image_id) or any(part in ("", ".", "..") for part in image_id.split("/")):
        raise Refusal(
            "bad-parameter",
            f"image_id: {image_id[:80]!r} is no name of a photo. Expected a path such as ada/3.jpg, without '#'.",
        )
    return image_id


async def _add_all(service: Service, version: Version, sent: list[_Sent], how: _How) -> list[AddedItem]:
    """In the order sent; as many at once as fill the processes for photos."""
    room = asyncio.Semaphore(2 * service.args.num_photo_processes)

    async def one(photo: _Sent) -> AddedItem:
        name = photo.item.image_id or ""
        try:
            async with room:
                return await _add(service, version, photo, how)
        except (Refusal, *edge.STORAGE) as failed:
            refusal = failed if isinstance(failed, Refusal) else edge.storage_fails(failed)
            error = ErrorDetail(reason=refusal.reason, message=refusal.message)
            return AddedItem(image_id=name, status=STATUS[refusal.reason], error=error)

    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(one(photo)) for photo in sent]
    return [task.result() for task in asked]


async def _add(service: Service, version: Version, sent: _Sent, how: _How) -> AddedItem:
    """Raises: Refusal for a photo that cannot be used, or another one of this name."""
    name, digest = sent.item.image_id or "", hashlib.sha256(sent.photo).hexdigest()
    before = await asyncio.to_thread(_sealed_of, version, name)
    if before and not how.replace:
        if set(before.values()) == {digest}:
            return AddedItem(image_id=name, status=200, images=sorted(before))
        raise _conflict(name)
    seen = await service.photos.look(sent.photo, version.look(how.faces))
    if isinstance(seen, Unusable):
        raise refuse_photo(seen.reason, seen.detail)
    if not seen.faces:
        raise refuse_photo(seen.refused[0].reason, seen.refused[0].detail)
    vectors = await asyncio.gather(*(version.embed(face.jpeg) for face in seen.faces))
    images = [
        _image(version, sent.item, digest, face, vector) for face, vector in zip(seen.faces, vectors, strict=True)
    ]
    store = version.gallery.store
    assert store is not None
    kept = sent.photo if how.keep_original else None
    about = {"original": kept, "replace": how.replace, "instead_of": tuple(before)}
    try:
        status, _ = await asyncio.to_thread(store.add, images, version.pair.model_fingerprint, **about)
    except ReadOnly as error:
        raise Refusal("read-only", str(error)) from error
    if status == "conflict":
        raise _conflict(name)
    return AddedItem(
        image_id=name, status=_STATUS[status], faces=_num_faces(seen, version), images=[one.image_id for one in images]
    )


def _num_faces(seen: Looked, version: Version) -> int:
    return len(seen.faces) + len(seen.refused) if version.config.looks else 0


def _conflict(name: str) -> Refusal:
    return Refusal("conflict", f"Another photo is called {name!r}. Give this one another name, or say ?replace=true.")


def _sealed_of(version: Version, photo: str) -> dict[str, str]:
    """The sealed images of a photo that are still there, with the hash of its bytes."""
    gallery = version.gallery
    entries = [gallery.entry(image_id) for image_id in gallery.images_of(photo)]
    return {one.image_id: one.content_hash for one in entries if one.where == "sealed"}


def _image(version: Version, item: AddItem, digest: str, face: PreparedFace, vector: np.ndarray) -> NewImage:
    photo = item.image_id or ""
    width, height = pixels.stored_size(face.jpeg)
    return NewImage(
        image_id=photo if face.number is None else f"{photo}#{face.number}",
        photo=photo,
        jpeg=face.jpeg,
        width=width,
        height=height,
        content_hash=digest,
        vector=vector,
        label=item.label,
        attributes=item.attributes,
        face=face.number,
        box=face.box,
        points=None if face.points is None else [edge for point in face.points for edge in point],
        quality=None if face.quality is None else asdict(face.quality),
        prepared=version.prepared,
    )
