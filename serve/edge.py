"""The HTTP edge: every refusal as the same JSON, media types, headers, and what is counted of each request."""

import logging
import math
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.metrics import Metrics
from serve.parts.messages import PartLost
from serve.schemas import ErrorBody, ErrorDetail

logger = logging.getLogger(__name__)

STATUS = {
    # what `retrieval.images` and `retrieval.ingestion` say about a photo
    "empty": 400,
    "truncated": 400,
    "unreadable": 400,
    "not-an-image": 415,
    "too-large": 413,
    "too-small": 422,
    "no-face": 422,
    "bad-box": 422,
    "face-too-small": 422,
    "face-blurred": 422,
    "face-turned": 422,
    # what the processes for photos say
    "too-many-scans": 422,
    "too-many-frames": 422,
    "crashed": 422,
    "timed-out": 422,
    # what the service says itself
    "bad-request": 400,
    "no-key": 401,
    "not-allowed": 403,
    "not-found": 404,
    "method-not-allowed": 405,
    "too-slow": 408,
    "conflict": 409,
    "read-only": 409,
    "body-too-large": 413,
    "not-a-photo": 415,
    "bad-parameter": 422,
    "too-many": 429,
    "internal": 500,
    "busy": 503,
    "unavailable": 503,
    "timeout": 504,
}
"""HTTP status of each reason."""

MESSAGES = {
    "empty": "The request has no body. Send the photo's bytes as the body.",
    "truncated": "The photo ends too early; it may not have been copied whole.",
    "unreadable": "The photo is damaged and cannot be decoded.",
    "not-an-image": "This is no image in a format that is taken here. Send a JPEG, PNG or WebP.",
    "too-large": "The photo has too many pixels.",
    "too-small": "The photo is too small.",
    "no-face": "No face was found in the photo. Try one where the face is larger, upright and seen from the front.",
    "face-too-small": "The face in the photo is too small to compare by. Try one where it is larger.",
    "face-blurred": "The face in the photo is too blurred to compare by. Try a sharper one.",
    "face-turned": "The face in the photo is turned away too far. Try one seen more from the front.",
    "bad-box": "The part to search with could not be cut out of the photo.",
    "too-many-scans": "The JPEG is made of too many scans to be decoded. Save it again, as a plain JPEG.",
    "too-many-frames": "The photo is an animation of too many frames. Send one of them.",
    "crashed": "The photo ended the process that decoded it; it is damaged.",
    "timed-out": "The photo takes too long to decode. Save it again, as a plain JPEG of fewer pixels.",
    "bad-parameter": "This service cannot do what a parameter asks for.",
}

# A browser may say what it likes about a file; curl --data-binary says form-urlencoded. The decoder has the last word.
_BODY_TYPES = ("image/", "application/octet-stream", "application/x-www-form-urlencoded")

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Refusal(Exception):
    """A request that is not answered. `reason` is a key of `STATUS`."""

    def __init__(self, reason: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message
        self.headers = dict(headers or {})


def refuse_photo(reason: str, detail: str) -> Refusal:
    """The refusal for what was found unusable behind the ingress; a reason this module does not know becomes 400."""
    known = reason if reason in STATUS else "unreadable"
    return Refusal(known, f"{MESSAGES[known]} ({detail})" if detail else MESSAGES[known])


def new_api(metrics: Metrics | None = None) -> FastAPI:
    """An empty API that answers every error in the form of `ErrorBody`, and adds `SECURITY_HEADERS` to all.

    Args: metrics: told of every request and refusal.
    """
    # FastAPI's own documentation pages load scripts from the internet.
    api = FastAPI(title="Image retrieval", docs_url=None, redoc_url=None)
    api.state.metrics = metrics
    api.add_middleware(_SecurityHeaders)
    if metrics is not None:
        api.add_middleware(_Counted, metrics=metrics)
    api.add_exception_handler(Refusal, _on_refusal)
    api.add_exception_handler(RequestValidationError, _on_validation)
    api.add_exception_handler(HTTPException, _on_http)
    for storage in STORAGE:
        api.add_exception_handler(storage, _on_storage)
    api.add_exception_handler(ClientDisconnect, _on_gone)
    api.add_exception_handler(Exception, _on_crash)
    return api


def check_media_type(content_type: str | None) -> None:
    """Raises: Refusal if the body is declared to be something else than the bytes of one file."""
    media_type = (content_type or "application/octet-stream").split(";")[0].strip().lower()
    if not media_type.startswith(_BODY_TYPES):
        raise Refusal(
            "not-a-photo",
            f"Content-Type is {media_type}, expected image/*: send the photo's bytes as the whole body, for example "
            f"curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg'.",
        )


def parse_box(text: str) -> tuple[float, float, float, float]:
    """ "x1,y1,x2,y2" -> four finite numbers. Whether they are in the photo is for those who have seen it to say."""
    try:
        x1, y1, x2, y2 = (float(edge) for edge in text.split(","))
    except ValueError:
        x1 = y1 = x2 = y2 = math.nan
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise Refusal(
            "bad-parameter",
            f"box: got {text[:80]!r}, expected x1,y1,x2,y2 in pixels of the upright photo, for example "
            f"box=40,30,620,410.",
        )
    return x1, y1, x2, y2


def said_of(errors: Sequence[Any], skip: int = 0) -> str:
    """What pydantic found wrong, as one sentence. Args: skip: first words of each place that are not the client's."""
    return "; ".join(f"{'.'.join(str(place) for place in one['loc'][skip:])}: {one['msg']}" for one in errors)


STORAGE = (OSError, sqlite3.OperationalError)
"""What a workspace that is away and a disk that is full raise."""


def storage_fails(error: Exception) -> Refusal:
    """503 with Retry-After: no fault of the request, and it may be well again in a moment. The log has the stack."""
    if isinstance(error, PartLost):  # who asks the parts has told the log already
        return Refusal("unavailable", str(error), {"Retry-After": "1"})
    logger.error("storage fails", exc_info=error)
    return Refusal("unavailable", "Storage fails just now. Try again shortly.", {"Retry-After": "1"})


def busy(retry_after_s: float) -> Refusal:
    """503 with Retry-After."""
    return Refusal(
        "busy", "All places in the queue are taken. Try again shortly.", {"Retry-After": str(math.ceil(retry_after_s))}
    )


def refused(refusal: Refusal) -> Response:
    """The answer to what is not answered, for whoever stands outside the routes."""
    return _error(refusal.reason, refusal.message, refusal.headers)


def _error(reason: str, message: str, headers: Mapping[str, str] | None = None, status: int | None = None) -> Response:
    body = ErrorBody(error=ErrorDetail(reason=reason, message=message))
    # Security headers here too: Starlette answers a crash from outside all middleware.
    everything = {**SECURITY_HEADERS, **(headers or {})}
    return JSONResponse(body.model_dump(), status_code=status or STATUS[reason], headers=everything)


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    if (metrics := request.app.state.metrics) is not None:
        metrics.refused(error.reason)
    return _error(error.reason, error.message, error.headers)


async def _on_validation(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _error("bad-parameter", said_of(error.errors(), skip=1))


async def _on_http(request: Request, error: Exception) -> Response:
    """What Starlette refuses by itself: unknown routes and methods."""
    assert isinstance(error, HTTPException)
    reason = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "bad-request")
    message = {
        "not-found": "There is nothing at this address.",
        "method-not-allowed": f"{request.method} is not possible here.",
    }.get(reason, str(error.detail))
    return _error(reason, message, error.headers, error.status_code)


async def _on_storage(request: Request, error: Exception) -> Response:
    return await _on_refusal(request, storage_fails(error))


async def _on_gone(_: Request, error: Exception) -> Response:
    """Nobody hears it; it is counted, and is no failure of the server. 499: as nginx names it."""
    return Response(status_code=499)


async def _on_crash(_: Request, error: Exception) -> Response:
    logger.error("a request failed", exc_info=error)
    return _error("internal", "The server failed on this request. Its log says why.")


class _SecurityHeaders:
    """Plain ASGI: Starlette's BaseHTTPMiddleware would hide a client's disconnect from the handler."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)


class _Counted:
    """Counts each request by its route and status. An address that is no route counts as one, so that none is kept."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "unknown")
                self._metrics.answered(route, message["status"])
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except Exception:  # answered outside all middleware
            self._metrics.answered(getattr(scope.get("route"), "path", "unknown"), 500)
            raise
