"""The HTTP edge without a server: bodies are read under a limit, and errors have one form."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import httpx
import pytest
from fastapi import Request
from starlette.types import Message

from serve.edge import MESSAGES, STATUS, Refusal, add_page, busy, check_media_type, new_api, read_body, refuse_photo


class Upload:
    """A client that sends pieces, and counts how many were taken."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.taken = 0

    async def receive(self) -> Message:
        self.taken += 1
        piece = next(self._pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}


def read(upload: Upload, limit: int, length: str | None = None) -> bytes:
    headers = [] if length is None else [(b"content-length", length.encode())]
    request = Request({"type": "http", "method": "POST", "headers": headers}, upload.receive)
    return asyncio.run(read_body(request, limit))


def test_a_body_at_the_limit_is_read_whole() -> None:
    assert read(Upload([b"abc", b"", b"de"]), 5, "5") == b"abcde"
    assert read(Upload([]), 5) == b""


def test_a_body_declared_too_large_is_not_read_at_all() -> None:
    upload = Upload([b"abc"])
    with pytest.raises(Refusal) as refused:
        read(upload, 5, "6")
    assert (refused.value.reason, upload.taken) == ("body-too-large", 0)


@pytest.mark.parametrize("length", [None, "1", "nonsense", "-1"])
def test_a_body_that_turns_out_too_large_is_not_read_further(length: str | None) -> None:
    upload = Upload([b"abc"] * 1000)
    with pytest.raises(Refusal) as refused:
        read(upload, 5, length)
    assert (refused.value.reason, upload.taken) == ("body-too-large", 2)


def test_media_types() -> None:
    for fine in (None, "image/jpeg", "IMAGE/PNG; q=1", "application/octet-stream", "application/x-www-form-urlencoded"):
        check_media_type(fine)
    for bad in ("multipart/form-data; boundary=x", "application/json", "text/plain", "video/mp4"):
        with pytest.raises(Refusal, match="not-a-photo"):
            check_media_type(bad)


def test_every_photo_reason_has_a_status_and_a_sentence() -> None:
    assert set(MESSAGES) <= set(STATUS)
    assert all(400 <= status < 600 for status in STATUS.values())
    assert refuse_photo("no-face", "of 9").message.endswith("(of 9)")
    assert refuse_photo("a reason of tomorrow", "x").reason == "unreadable"


def ask(method: str, path: str) -> httpx.Response:
    """One request to a small API, in this process."""
    api = new_api()
    add_page(api)

    @api.get("/number")
    async def number(k: int) -> int:
        return k

    @api.get("/busy")
    async def full() -> None:
        raise busy(1.2)

    @api.get("/crash")
    async def crash() -> None:
        raise RuntimeError("secret path /home/x")

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(api, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path)

    return asyncio.run(send())


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/number?k=x", 422, "bad-parameter"),
        ("/number", 422, "bad-parameter"),
        ("/busy", 503, "busy"),
        ("/crash", 500, "internal"),
        ("/none", 404, "not-found"),
        ("/docs", 404, "not-found"),
    ],
)
def test_errors_have_one_form_and_the_headers_of_any_answer(path: str, status: int, reason: str) -> None:
    response = ask("GET", path)
    assert (response.status_code, response.json()["error"]["reason"]) == (status, reason)
    assert set(response.json()) == {"error"}
    assert set(response.json()["error"]) == {"reason", "message"}
    assert "secret" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert response.headers.get("retry-after") == ("2" if reason == "busy" else None)


def test_a_wrong_method_names_the_right_ones() -> None:
    response = ask("POST", "/number")
    assert (response.status_code, response.headers["allow"]) == (405, "GET")


def test_the_page_is_served() -> None:
    for path, kind in (("/", "text/html"), ("/app.js", "text/javascript"), ("/style.css", "text/css")):
        response = ask("GET", path)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(kind)
