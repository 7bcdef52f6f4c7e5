"""The addresses from before /v1, with the answers they always had: POST /search, GET /gallery/{row}, /info, /health."""

# No `from __future__ import annotations`: FastAPI reads the annotations as types.
import asyncio
import re
import time
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

from serve import edge
from serve.edge import Refusal
from serve.engine import query
from serve.engine.clock import Clock
from serve.engine.filtering import thumbnail_of
from serve.engine.verifying import usual_rerank
from serve.engine.version import Version
from serve.routes.images import stored
from serve.routes.info import limits_of
from serve.routes.search import ERRORS, JPEG, prefix_of
from serve.schemas import MAX_ALPHA, Answer, Defaults, Health, Info, SearchOptions
from serve.service import Service


def add(api: FastAPI, service: Service) -> None:
    """Adds the routes."""
    args, max_k = service.args, service.args.max_k

    @api.post("/search", responses=ERRORS, tags=["before /v1"])
    async def search(
        request: Request,
        k: Annotated[int, Query(ge=1, le=max_k)] = min(10, max_k),
        crop: bool = False,
        expand: Annotated[int, Query(ge=0, le=args.max_expand)] = args.expand,
        alpha: Annotated[float, Query(ge=0, le=MAX_ALPHA, allow_inf_nan=False)] = args.alpha,
        box: Annotated[str | None, Query(description="x1,y1,x2,y2 of the upright photo, pixels")] = None,
    ) -> Answer:
        """Search with the photo that is the body."""
        part = None if box is None else edge.parse_box(box)
        options = SearchOptions(k=k, crop=crop, expand=expand, alpha=alpha, box=part)
        return await _search(service, request, options)

    @api.get("/gallery/{row}", response_class=Response, responses=JPEG, tags=["before /v1"])
    async def gallery(request: Request, row: str) -> Response:
        """The stored crop of one row of the index, JPEG."""
        version = service.versions.current
        # ASCII digits only: int() also takes signs, spaces and other scripts' digits.
        if not re.fullmatch(r"[0-9]{1,12}", row) or int(row) >= len(version.gallery.sealed):
            raise Refusal("not-found", f"There is no such image: rows are 0 to {len(version.gallery.sealed) - 1}.")
        try:
            jpeg = await asyncio.to_thread(version.gallery.jpeg_at, int(row))
        except IndexError as error:
            raise Refusal("not-found", "The image of this row was deleted.") from error
        return stored(jpeg, f"{version.pair.index_fingerprint[:16]}-{int(row)}", request)

    @api.get("/info", tags=["before /v1"])
    async def info() -> Info:
        """What is loaded."""
        return _info(service, service.versions.current)

    @api.get("/health", responses=ERRORS, tags=["before /v1"])
    async def health() -> Health:
        """As /readyz, in one word."""
        ready = await service.ready()
        if ready.status != "ok":
            failed = "; ".join(f"{name}: {part.why}" for name, part in ready.parts.items() if not part.ok)
            again = {"Retry-After": str(args.retry_after_s)}
            raise Refusal("unavailable", f"A part of the service has failed. {failed}", again)
        return Health()


async def _search(service: Service, request: Request, options: SearchOptions) -> Answer:
    clock = Clock()
    edge.check_media_type(request.headers.get("content-type"))
    service.check_room()
    photo = await service.uploads.read(request, service.args.max_body_bytes)
    clock.spent["upload"] = time.perf_counter() - clock.began
    async with service.place():
        version = service.versions.current
        found = await query.answer(service, options, photo, clock, prefix_of(request))
    assert found.query is not None, "a photo was sent"
    prefix = prefix_of(request)
    results = [
        result.model_copy(update={"thumbnail": _thumbnail(version, result.image_id, prefix)})
        for result in found.results
    ]
    return Answer(
        query=found.query,
        results=results,
        expansion=found.expansion,
        model=found.model,
        index=found.index,
        seconds=found.seconds,
    )


def _thumbnail(version: Version, image_id: str, prefix: str) -> str:
    """By its row, as ever; what was added has none, and has its new address."""
    try:
        return f"{prefix}/gallery/{version.gallery.row_of(image_id)}"
    except KeyError:
        return thumbnail_of(image_id, prefix)


def _info(service: Service, version: Version) -> Info:
    args = service.args
    return Info(
        model=version.describe(),
        index=version.describe_index(),
        collection=version.pair.collection_fingerprint,
        limits=limits_of(args),
        defaults=Defaults(expand=args.expand, alpha=args.alpha, rerank=usual_rerank(args, version)),
    )
