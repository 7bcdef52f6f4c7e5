"""The HTTP edge without a server: bodies are read under a limit, and errors have one form."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import httpx
import pytest
from fastapi import Request
from starlette.types import Message

from serve.edge import (
    MESSAGES,
    SECURITY_HEADERS,
    STATUS,
    Refusal,
    add_page,
    busy,
    check_media_type,
    new_api,
    parse_box,
    read_body,
    refuse_photo,
)


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


def ask(method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
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
            return await client.request(method, path, headers=headers)

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


@pytest.mark.parametrize("path", ["/", "/number?k=1", "/none", "/busy", "/crash"])
def test_every_answer_has_every_security_header(path: str) -> None:
    headers = ask("GET", path).headers
    assert {name: headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert "'unsafe" not in headers["content-security-policy"]


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("empty", 400),
        ("truncated", 400),
        ("unreadable", 400),
        ("not-an-image", 415),
        ("not-a-photo", 415),
        ("too-large", 413),
        ("body-too-large", 413),
        ("too-small", 422),
        ("no-face", 422),
        ("bad-box", 422),
        ("bad-parameter", 422),
        ("not-found", 404),
        ("timeout", 504),
        ("busy", 503),
        ("unavailable", 503),
        ("internal", 500),
    ],
)
def test_whose_fault_it_is(reason: str, status: int) -> None:
    assert STATUS[reason] == status


def test_a_refusal_says_what_and_more_where_more_is_known() -> None:
    plain, detailed = refuse_photo("too-small", ""), refuse_photo("too-small", "8 x 8")
    assert (plain.reason, plain.message) == ("too-small", MESSAGES["too-small"])
    assert detailed.message == f"{MESSAGES['too-small']} (8 x 8)"
    assert refuse_photo("tomorrow", "").message == MESSAGES["unreadable"]


@pytest.mark.parametrize(
    ("text", "box"), [("1,2,3,4", (1, 2, 3, 4)), (" 1.5, -2 ,3e2,4", (1.5, -2, 300, 4)), ("0,0,0,0", (0, 0, 0, 0))]
)
def test_boxes(text: str, box: tuple[float, ...]) -> None:
    assert parse_box(text) == box


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "1;2;3;4", "a,b,c,d", "1,2,3,nan", "1,inf,3,4", "1,2,3,"])
def test_boxes_that_are_none(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_box(text)
    assert refused.value.reason == "bad-parameter"
    assert "expected x1,y1,x2,y2" in refused.value.message


def test_a_long_box_is_not_sent_back_whole() -> None:
    with pytest.raises(Refusal) as refused:
        parse_box("9" * 5000)
    assert len(refused.value.message) < 300


@pytest.mark.parametrize(("seconds", "header"), [(1, "1"), (1.2, "2"), (0.1, "1")])
def test_who_is_turned_away_is_told_whole_seconds(seconds: float, header: str) -> None:
    assert busy(seconds).headers == {"Retry-After": header}


def test_a_digit_of_another_script_is_no_length() -> None:
    with pytest.raises(Refusal):
        read(Upload([b"abcdef"]), 5, "٣")
    assert read(Upload([b"ab"]), 5, "4") == b"ab"


def test_the_page_is_asked_for_again_each_time_and_is_no_part_of_the_schema() -> None:
    assert ask("GET", "/app.js").headers["cache-control"] == "no-cache"
    api = new_api()
    add_page(api)
    assert api.openapi()["paths"] == {}


def test_a_file_of_the_page_that_did_not_change_is_not_sent_again() -> None:
    first = ask("GET", "/style.css")
    again = ask("GET", "/style.css", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert ask("GET", "/", headers={"if-none-match": first.headers["etag"]}).status_code == 200  # another file


def test_a_parameter_that_is_wrong_is_named() -> None:
    assert ask("GET", "/number?k=x").json()["error"]["message"].startswith("k: ")


def test_a_crash_is_logged_with_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    ask("GET", "/crash")
    (record,) = [record for record in caplog.records if record.name == "serve.edge"]
    assert record.levelname == "ERROR" and record.exc_info is not None
    assert "secret path" in str(record.exc_info[1])
