"""The HTTP edge without a server: errors have one form, and are counted."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import Request

import serve.routes.page
from serve.edge import (
    MESSAGES,
    SECURITY_HEADERS,
    STATUS,
    Refusal,
    busy,
    check_media_type,
    new_api,
    parse_box,
    refuse_photo,
)
from serve.metrics import Metrics


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


def ask(
    method: str, path: str, headers: dict[str, str] | None = None, metrics: Metrics | None = None
) -> httpx.Response:
    """One request to a small API, in this process."""
    api = new_api(metrics)
    serve.routes.page.add(api)

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


def test_a_parameter_that_is_wrong_is_named() -> None:
    assert ask("GET", "/number?k=x").json()["error"]["message"].startswith("k: ")


def test_a_crash_is_logged_with_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    ask("GET", "/crash")
    (record,) = [record for record in caplog.records if record.name == "serve.edge"]
    assert record.levelname == "ERROR" and record.exc_info is not None
    assert "secret path" in str(record.exc_info[1])


def test_who_goes_away_while_sending_is_no_failure_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics("r1")
    api, pieces, answers = new_api(metrics), [b"half a pho"], list[Any]()

    @api.post("/photo")
    async def photo(request: Request) -> int:
        return len(await request.body())

    async def receive() -> dict[str, Any]:
        if pieces:
            return {"type": "http.request", "body": pieces.pop(), "more_body": True}
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        answers.append(message)

    scope = {"type": "http", "method": "POST", "path": "/photo", "headers": [], "query_string": b""}
    asyncio.run(api(scope, receive, send))
    assert answers[0]["status"] == 499 and not caplog.records
    assert 'retrieval_requests_total{replica="r1",route="/photo",status="499"} 1.0' in metrics.text().decode()


def test_requests_are_counted_by_route_and_status_and_refusals_by_reason() -> None:
    metrics = Metrics("r1")
    for path in ("/number?k=1", "/number?k=x", "/busy", "/crash", "/none/secret"):
        ask("GET", path, metrics=metrics)
    told = metrics.text().decode()
    for route, status in (("/number", 200), ("/number", 422), ("/busy", 503), ("/crash", 500), ("unknown", 404)):
        assert f'retrieval_requests_total{{replica="r1",route="{route}",status="{status}"}} 1.0' in told
    assert 'retrieval_refusals_total{reason="busy",replica="r1"} 1.0' in told
    assert "secret" not in told
