"""The page's files."""

import functools
import hashlib
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response

from serve.service import Service

_PAGE = Path(__file__).parents[1] / "page"
_PAGE_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}


def add(api: FastAPI, _: Service | None = None) -> None:
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
