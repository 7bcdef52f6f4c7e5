"""POST /v1/search: a photo, or what else there is to search with; what to look for in the address or beside it."""

# No `from __future__ import annotations`: FastAPI reads the annotations as types.
import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import ValidationError

from serve import edge
from serve.edge import Refusal
from serve.engine import query
from serve.engine.clock import Clock
from serve.forms import is_form, parts_of
from serve.routes.bodies import FILE, checked_photo, object_of, photo_body
from serve.schemas import ErrorBody, Filter, SearchAnswer, SearchOptions
from serve.service import Service
from serve.settings import ServeArgs

_MOST_OPTIONS = 1 << 20
ERRORS: dict[int | str, dict[str, Any]] = {code: {"model": ErrorBody} for code in sorted(set(edge.STATUS.values()))}
"""What any route may answer instead."""
JPEG = {**ERRORS, 200: {"content": {"image/jpeg": {}}, "description": "A JPEG."}}
"""The same of a route that shows pixels."""

_OPTIONS = {"$ref": "#/components/schemas/SearchOptions"}
_BODY = photo_body({"photo": FILE, "options": _OPTIONS}, {"application/json": {"schema": _OPTIONS}})


def add(api: FastAPI, service: Service) -> None:
    """Adds the route."""
    extra = {"requestBody": _BODY, "parameters": parameters(service.args)}

    @api.post("/v1/search", response_model=SearchAnswer, responses=ERRORS, openapi_extra=extra, tags=["search"])
    async def search(request: Request) -> Response:
        """Search with a photo (the body, or the part `photo` of a form), with stored images, or with words (JSON)."""
        clock = Clock()
        service.check_room()
        given = given_in_address(request)
        photo, told = await photo_and_options(service, request)
        clock.spent["upload"] = time.perf_counter() - clock.began
        options = options_of(service.args, {**given, **told})
        async with service.place():
            answer = await query.answer(service, options, photo, clock, prefix_of(request))
        # Written here: FastAPI would check every result again before it writes them.
        return Response(answer.model_dump_json(), media_type="application/json")


_IN_ADDRESS = ("k", "min_score", "min_probability", "far", "expand", "alpha", "rerank", "evidence", "crop")
_AS_TEXT = {
    "face": "best, all, or a number as POST /v1/faces counts.",
    "box": "x1,y1,x2,y2 of the upright photo, pixels (places).",
    "filter": "A Filter as JSON.",
}


def parameters(args: ServeArgs) -> list[dict[str, Any]]:
    """The options that an address may hold, for the OpenAPI document."""
    fields = SearchOptions.model_json_schema()["properties"]
    limits = {"k": args.max_k, "expand": args.max_expand}
    told = []
    for name in _IN_ADDRESS:
        schema = {key: value for key, value in fields[name].items() if key not in ("title", "default", "description")}
        schema = next((one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"), schema)
        if name in limits:
            schema = {**schema, "maximum": limits[name]}
        told.append({"name": name, "in": "query", "description": fields[name]["description"], "schema": schema})
    return told + [
        {"name": name, "in": "query", "description": says, "schema": {"type": "string"}}
        for name, says in _AS_TEXT.items()
    ]


def given_in_address(request: Request) -> dict[str, Any]:
    """The options of an address, those that are not plain values read. Raises: Refusal bad-parameter."""
    given: dict[str, Any] = {}
    for name, text in request.query_params.multi_items():
        if name in given or name not in (*_IN_ADDRESS, *_AS_TEXT):
            what = "comes twice" if name in given else "is no parameter of this address"
            raise Refusal("bad-parameter", f"{name[:80]}: {what}.")
        given[name] = text
    if given.get("face", "").isdecimal() and given["face"].isascii():
        given["face"] = int(given["face"][:9])
    if "box" in given:
        given["box"] = edge.parse_box(given["box"])
    if "filter" in given:
        given["filter"] = filter_from(given["filter"])
    return given


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
    photo = checked_photo(parts["photo"], limit)
    told = object_of(parts["options"].data, "The part 'options'") if "options" in parts else {}
    return photo, told


def filter_from(text: str) -> Filter:
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
