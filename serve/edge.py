"""The HTTP edge: bodies read under a limit, every refusal as the same JSON, headers, and the page's files."""

import functools
import hashlib
import logging
import math
from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
    "not-an-image": "This is no image in a known format. Send a JPEG, PNG, HEIC, AVIF, WebP, GIF, BMP or TIFF.",
    "too-large": "The photo has too many pixels.",
    "too-small": "The photo is too small.",
    "no-face": "No face was found in the photo. Try one where the face is larger, upright and seen from the front.",
    "face-too-small": "The face in the photo is too small to compare by. Try one where it is larger.",
    "face-blurred": "The face in the photo is too blurred to compare by. Try a sharper one.",
    "face-turned": "The face in the photo is turned away too far. Try one seen more from the front.",
    "bad-box": "The part to search with could not be cut out of the photo.",
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

_PAGE = Path(__file__).parent / "page"
_PAGE_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
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


def new_api() -> FastAPI:
    """An empty API that answers every error in the form of `ErrorBody`, and adds `SECURITY_HEADERS` to all."""
    # FastAPI's own documentation pages load scripts from the internet.
    api = FastAPI(title="Image retrieval", docs_url=None, redoc_url=None)
    api.add_middleware(_SecurityHeaders)
    api.add_exception_handler(Refusal, _on_refusal)
    api.add_exception_handler(RequestValidationError, _on_validation)
    api.add_exception_handler(HTTPException, _on_http)
    api.add_exception_handler(Exception, _on_crash)
    return api


def add_page(api: FastAPI) -> None:
    """A route for each file of the page, all read once: no address names a path."""
    for path in sorted(path for path in _PAGE.rglob("*") if path.suffix in _PAGE_TYPES):
        name = path.relative_to(_PAGE).as_posix()
        file = functools.partial(_send_file, path.read_bytes(), _PAGE_TYPES[path.suffix])
        route = "/" if name == "index.html" else f"/{name}"
        api.add_route(route, file, methods=["GET"], include_in_schema=False)


async def _send_file(content: bytes, media_type: str, request: Request) -> Response:
    # Asked for again each time, so that a page never runs the modules of another version; mostly the answer is 304.
    headers = {"Cache-Control": "no-cache", "ETag": f'"{hashlib.sha256(content).hexdigest()[:16]}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


def check_media_type(content_type: str | None) -> None:
    """Raises: Refusal if the body is declared to be something else than the bytes of one file."""
    media_type = (content_type or "application/octet-stream").split(";")[0].strip().lower()
    if not media_type.startswith(_BODY_TYPES):
        raise Refusal(
            "not-a-photo",
            f"Content-Type is {media_type}, expected image/*: send the photo's bytes as the whole body, for example "
            f"curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg'.",
        )


async def read_body(request: Request, limit: int) -> bytes:
    """The request's body, never more than `limit` bytes of it.

    Raises: Refusal from the declared length alone where there is one, else as soon as the limit is passed.
    """
    too_large = Refusal("body-too-large", f"The photo is larger than {limit} bytes, the limit of this server.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    pieces, total = [], 0
    async for piece in request.stream():
        total += len(piece)
        if total > limit:
            raise too_large
        pieces.append(piece)
    return b"".join(pieces)


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


async def _on_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _error(error.reason, error.message, error.headers)


async def _on_validation(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said = "; ".join(f"{'.'.join(str(place) for place in one['loc'][1:])}: {one['msg']}" for one in error.errors())
    return _error("bad-parameter", said)


async def _on_http(request: Request, error: Exception) -> Response:
    """What Starlette refuses by itself: unknown routes and methods."""
    assert isinstance(error, HTTPException)
    reason = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "bad-request")
    message = {
        "not-found": "There is nothing at this address.",
        "method-not-allowed": f"{request.method} is not possible here.",
    }.get(reason, str(error.detail))
    return _error(reason, message, error.headers, error.status_code)


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
