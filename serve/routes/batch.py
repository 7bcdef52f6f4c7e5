"""POST /v1/search/batch: many photos in one request, each with an answer or a refusal of its own."""

# No `from __future__ import annotations`: FastAPI reads the annotations as types.
import asyncio
import time

from fastapi import FastAPI, Request

from serve.edge import STATUS, STORAGE, Refusal, storage_fails
from serve.engine import query
from serve.engine.clock import Clock
from serve.engine.version import Version
from serve.forms import Part
from serve.guard import charge
from serve.routes.bodies import FILE, checked_photo, form_of, read_photos
from serve.routes.search import ERRORS, options_of, prefix_of
from serve.schemas import BatchAnswer, BatchItem, ErrorDetail, SearchOptions
from serve.service import Service

_OPTIONS = {"$ref": "#/components/schemas/SearchOptions"}


def add(api: FastAPI, service: Service) -> None:
    """Adds the route."""
    many = {"type": "array", "items": FILE, "maxItems": service.args.max_batch_photos}
    described = form_of({"photo": many, "options": _OPTIONS}, ["photo"])

    @api.post("/v1/search/batch", responses=ERRORS, openapi_extra=described, tags=["search"])
    async def search_batch(request: Request) -> BatchAnswer:
        """Search with every part `photo` of a form; the part `options` holds for all of them."""
        clock = Clock()
        service.check_room()
        photos, told = await read_photos(service.uploads, request, service.args)
        options = options_of(service.args, told)
        clock.spent["upload"] = time.perf_counter() - clock.began
        charge(request, len(photos))
        async with service.place():
            version = service.versions.current
            query.check_options(service.args, version, options, with_photo=True)
            items = await _answers(service, options, photos, prefix_of(request))
        return _together(version, items, clock)


async def _answers(service: Service, options: SearchOptions, photos: list[Part], prefix: str) -> list[BatchItem]:
    """Enough of them at once to fill a batch of the network while others are decoded, and no more: whoever asks with
    one photo meanwhile does not wait behind all."""
    room = asyncio.Semaphore(service.args.max_batch + service.args.num_photo_processes)

    async def one(place: int, part: Part) -> BatchItem:
        name = part.filename or str(place)
        try:
            photo = checked_photo(part, service.args.max_body_bytes)
            async with room:
                answer = await query.answer(service, options, photo, Clock(), prefix)
            return BatchItem(name=name, status=200, answer=answer)
        except (Refusal, *STORAGE) as failed:
            refusal = failed if isinstance(failed, Refusal) else storage_fails(failed)
            error = ErrorDetail(reason=refusal.reason, message=refusal.message)
            return BatchItem(name=name, status=STATUS[refusal.reason], error=error)

    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(one(place, part)) for place, part in enumerate(photos)]
    return [task.result() for task in asked]


def _together(version: Version, items: list[BatchItem], clock: Clock) -> BatchAnswer:
    """What the photos took is summed: they were worked on side by side, so it may be more than `total`."""
    for item in items:
        if item.answer is not None:
            for stage in ("prepare", "embed", "search", "rerank"):
                clock.spent[stage] = clock.spent.get(stage, 0.0) + getattr(item.answer.seconds, stage)
    live = max((item.answer.live for item in items if item.answer is not None), default=0)
    return BatchAnswer(items=items, seconds=clock.seconds(), **version.says(live))
