"""POST /v1/search: a photo, or what else there is to search with; what to look for in the address or beside it."""

# No `from __future__ import annotations`: FastAPI reads the annotations as types.
import json
import time
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from pydantic import ValidationError

from serve import edge
from serve.edge import Refusal
from serve.engine import query
from serve.engine.query import Clock
from serve.forms import is_form, parts_of
from serve.schemas import MAX_ALPHA, ErrorBody, Filter, SearchAnswer, SearchOptions
from serve.service import Service
from serve.settings import ServeArgs

_MOST_OPTIONS = 1 << 20
ERRORS: dict[int | str, dict[str, Any]] = {code: {"model": ErrorBody} for code in sorted(set(edge.STATUS.values()))}
"""What any route may answer instead."""

_PHOTO = {"schema": {"type": "string", "format": "binary"}}
_OPTIONS = {"$ref": "#/components/schemas/SearchOptions"}
_BODY = {
    "required": True,
    "content": {
        "image/*": _PHOTO,
        "application/octet-stream": _PHOTO,
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["photo"],
                "properties": {"photo": {"type": "string", "format": "binary"}, "options": _OPTIONS},
            }
        },
        "application/json": {"schema": _OPTIONS},
    },
}


def add(api: FastAPI, service: Service) -> None:
    """Adds the route."""
    args = service.args

    @api.post("/v1/search", responses=ERRORS, openapi_extra={"requestBody": _BODY}, tags=["search"])
    async def search(
        request: Request,
        k: Annotated[int | None, Query(ge=1, le=args.max_k, description="Most results.")] = None,
        min_score: Annotated[float | None, Query(ge=-1, le=1, allow_inf_nan=False)] = None,
        min_probability: Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)] = None,
        far: Annotated[float | None, Query(gt=0, lt=1, allow_inf_nan=False)] = None,
        expand: Annotated[int | None, Query(ge=0, le=args.max_expand)] = None,
        alpha: Annotated[float | None, Query(ge=0, le=MAX_ALPHA, allow_inf_nan=False)] = None,
        rerank: Annotated[int | None, Query(ge=0, le=1000)] = None,
        evidence: bool | None = None,
        face: Annotated[str | None, Query(description="best, all, or a number", max_length=8)] = None,
        crop: bool | None = None,
        box: Annotated[str | None, Query(description="x1,y1,x2,y2 of the upright photo, pixels")] = None,
        filter: Annotated[str | None, Query(description="A Filter as JSON", max_length=65536)] = None,
    ) -> SearchAnswer:
        """Search with a photo (the body, or the part `photo` of a form), or with images of the gallery (JSON)."""
        given: dict[str, Any] = {
            "k": k,
            "min_score": min_score,
            "min_probability": min_probability,
            "far": far,
            "expand": expand,
            "alpha": alpha,
            "rerank": rerank,
            "evidence": evidence,
            "face": int(face) if face is not None and face.isdecimal() and face.isascii() else face,
            "crop": crop,
            "box": None if box is None else edge.parse_box(box),
            "filter": None if filter is None else _filter(filter),
        }
        return await _search(service, request, {name: value for name, value in given.items() if value is not None})


async def _search(service: Service, request: Request, given: dict[str, Any]) -> SearchAnswer:
    clock = Clock()
    service.check_room()
    photo, told = await photo_and_options(service, request)
    clock.spent["upload"] = time.perf_counter() - clock.began
    options = options_of(service.args, {**given, **told})
    async with service.place():
        return await query.answer(service, options, photo, clock, prefix_of(request))


async def photo_and_options(service: Service, request: Request) -> tuple[bytes | None, dict[str, Any]]:
    """The photo of a request, if it brings one, and the options beside it.

    Raises: Refusal.
    """
    kind = request.headers.get("content-type")
    media_type = (kind or "").split(";")[0].strip().lower()
    limit = service.args.max_body_bytes
    if media_type == "application/json":
        return None, object_of(await service.uploads.read(request, _MOST_OPTIONS, "JSON"), "The body")
    if not is_form(kind):
        edge.check_media_type(kind)
        return await service.uploads.read(request, limit), {}
    body = await service.uploads.read(request, limit + _MOST_OPTIONS, "form")
    parts = {part.name: part for part in parts_of(body, kind or "", max_parts=8)}
    if "photo" not in parts:
        raise Refusal("bad-request", f"The form has no part 'photo'; it has: {', '.join(sorted(parts)) or 'none'}.")
    if len(parts["photo"].data) > limit:
        raise Refusal("body-too-large", f"The photo is larger than {limit} bytes, the limit of this server.")
    told = object_of(parts["options"].data, "The part 'options'") if "options" in parts else {}
    return parts["photo"].data, told


def object_of(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Args: what: is called so in a refusal. Raises: Refusal bad-request."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal("bad-request", f"{what} is no JSON.") from error
    if not isinstance(told, dict):
        raise Refusal("bad-request", f"{what} is no JSON object.")
    return told


def _filter(text: str) -> Filter:
    try:
        return Filter.model_validate_json(text)
    except ValidationError as error:
        raise Refusal("bad-parameter", f"filter: {edge.said_of(error.errors())}") from error


def options_of(args: ServeArgs, given: dict[str, Any]) -> SearchOptions:
    """What a search was told, and the rest as this service has it. Raises: Refusal bad-parameter."""
    try:
        return SearchOptions.model_validate({"k": min(10, args.max_k), **given})
    except ValidationError as error:
        raise Refusal("bad-parameter", edge.said_of(error.errors())) from error


def prefix_of(request: Request) -> str:
    """What all addresses of this service begin with, where a proxy put it below a path of its own."""
    return request.scope.get("root_path", "").rstrip("/")
