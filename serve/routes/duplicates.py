"""GET /v1/duplicates: pictures that are in the gallery more than once."""

# No `from __future__ import annotations`: FastAPI reads the annotations as types.
import asyncio

from fastapi import FastAPI, Request

from serve.engine.groups import Groups
from serve.routes.people import After, Limit
from serve.routes.search import ERRORS, prefix_of
from serve.schemas import DuplicatesPage
from serve.service import Service


def add(api: FastAPI, service: Service) -> None:
    """Adds the route."""

    @api.get("/v1/duplicates", responses=ERRORS, tags=["people"])
    async def duplicates(request: Request, after: After = None, limit: Limit = 50) -> DuplicatesPage:
        """Pictures that are there more than once: byte for byte, or resized, recompressed, cropped a little."""
        version, prefix = service.versions.current, prefix_of(request)
        found, following, total = await asyncio.to_thread(Groups(version.gallery).copies, after, limit, prefix)
        return DuplicatesPage(groups=found, next=following, total=total, **version.says())
