"""GET /v1/images/{id}/thumbnail: the stored crop of an image."""

import asyncio
import hashlib

from fastapi import FastAPI, Request
from fastapi.responses import Response

from serve.edge import Refusal
from serve.routes.search import ERRORS
from serve.service import Service


def add(api: FastAPI, service: Service) -> None:
    """Adds the route."""

    @api.get("/v1/images/{image_id:path}/thumbnail", response_class=Response, responses=ERRORS, tags=["images"])
    async def thumbnail(request: Request, image_id: str) -> Response:
        """The stored crop, JPEG."""
        version = service.versions.current
        try:
            jpeg = await asyncio.to_thread(version.gallery.jpeg, image_id)
        except KeyError as error:
            raise Refusal("not-found", "There is no such image in the gallery.") from error
        return stored(jpeg, f"{version.name}-{hashlib.sha256(image_id.encode()).hexdigest()[:16]}", request)


def stored(jpeg: bytes, tag: str, request: Request) -> Response:
    """A stored JPEG, or 304. An address may mean another image in the next version, so browsers must ask."""
    headers = {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(jpeg, media_type="image/jpeg", headers=headers)
