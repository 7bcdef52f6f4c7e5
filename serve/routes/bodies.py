"""Bodies of photos: forms, read under a limit, and how they are described."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import Request

from serve.edge import Refusal
from serve.forms import Part, is_form, parts_of
from serve.settings import ServeArgs
from serve.uploads import Uploads

FILE: dict[str, Any] = {"type": "string", "format": "binary"}
_ROOM_FOR_HEADS = 4096
"""Bytes of a part besides its photo: its head, and the line between two parts."""


def photo_body(form: dict[str, Any], others: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """How a body is described that is a photo, or a form with one. Args: form: its parts. others: what else it may be,
    by media type."""
    schema = {"type": "object", "required": ["photo"], "properties": form}
    photo = {name: {"schema": FILE} for name in ("image/*", "application/octet-stream")}
    return {"required": True, "content": {**photo, "multipart/form-data": {"schema": schema}, **(others or {})}}


def form_of(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """`openapi_extra` of a route that takes a form."""
    schema = {"type": "object", "required": required, "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def object_of(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Args: what: is called so in a refusal. Raises: Refusal bad-request."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal("bad-request", f"{what} is no JSON.") from error
    if not isinstance(told, dict):
        raise Refusal("bad-request", f"{what} is no JSON object.")
    return told


async def read_form(uploads: Uploads, request: Request, limit: int, max_parts: int) -> list[Part]:
    """The parts of a form of `limit` bytes at most, and what goes between them.

    Raises: Refusal not-a-photo for another kind of body; those of `Uploads.read` and `parts_of`.
    """
    kind = request.headers.get("content-type")
    if not is_form(kind):
        raise Refusal(
            "not-a-photo", "Send a form (multipart/form-data), for example curl -F photo=@a.jpg -F photo=@b.jpg."
        )
    body = await uploads.read(request, limit + max_parts * _ROOM_FOR_HEADS, "form")
    return parts_of(body, kind or "", max_parts)


async def read_photos(uploads: Uploads, request: Request, args: ServeArgs) -> tuple[list[Part], dict[str, Any]]:
    """The parts `photo` of a form, one or more, and the options beside them.

    Raises: Refusal bad-request for too many or none; those of `read_form`.
    """
    parts = await read_form(uploads, request, args.max_batch_bytes, args.max_batch_photos + 8)
    photos = [part for part in parts if part.name == "photo"]
    if not 1 <= len(photos) <= args.max_batch_photos:
        raise Refusal(
            "bad-request", f"The form has {len(photos)} parts 'photo', expected 1 to {args.max_batch_photos}."
        )
    told = next((object_of(part.data, "The part 'options'") for part in parts if part.name == "options"), {})
    return photos, told


def checked_photo(part: Part, limit: int) -> bytes:
    """Raises: Refusal body-too-large."""
    if len(part.data) > limit:
        raise Refusal("body-too-large", f"The photo is larger than {limit} bytes, the limit of this server.")
    return part.data
