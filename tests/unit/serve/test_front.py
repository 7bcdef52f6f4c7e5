"""The short way: what it answers is what the long way answers."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response

from serve.edge import busy, new_api
from serve.front import Front
from serve.metrics import Metrics


class Named:
    """A middleware that says in a header that it was there."""

    def __init__(self, app: Any, name: str) -> None:
        self.app, self.name = app, name

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def named(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-through", self.name.encode())]
            await send(message)

        await self.app(scope, receive, named)


def api_of(metrics: Metrics | None = None) -> FastAPI:
    api = new_api(metrics)

    @api.post("/fine")
    async def fine(request: Request) -> Response:
        return Response(await request.body() + request.url.query.encode(), headers={"x-path": request.url.path})

    @api.post("/full")
    async def full(request: Request) -> Response:
        raise busy(3)

    @api.post("/away")
    async def away(request: Request) -> Response:
        raise OSError("secret path /home/x")

    @api.post("/crash")
    async def crash(request: Request) -> Response:
        raise RuntimeError("secret path /home/x")

    @api.post("/counted/{number}")
    async def counted(request: Request, number: int) -> Response:
        return Response()

    api.add_middleware(Named, name="inner")
    api.add_middleware(Named, name="outer")
    return api


def ask(app: Any, method: str, path: str, root_path: str = "") -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, content=b"photo")

    return asyncio.run(send())


SHORT = ["/fine", "/full", "/away", "/crash"]


@pytest.mark.parametrize("path", ["/fine?k=3", "/full", "/away", "/crash"])
def test_both_ways_give_the_same_answer_and_count_it_the_same(path: str) -> None:
    found, counted = [], []
    for short in ([], SHORT):
        metrics = Metrics("local")
        answer = ask(Front(api_of(metrics), short), "POST", path)
        through = answer.headers.get_list("x-through")  # the innermost first
        found.append((answer.status_code, answer.content, through, sorted(answer.headers.multi_items())))
        lines = metrics.text().decode().splitlines()
        counted.append([line for line in lines if line.startswith(("retrieval_requests_t", "retrieval_refusals_t"))])
    assert found[0] == found[1] and counted[0] == counted[1]
    assert counted[0] and "/home/x" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_short_way_takes_no_more_than_it_was_given() -> None:
    front = Front(api_of(), SHORT)
    assert ask(front, "GET", "/fine").status_code == 405
    assert ask(front, "POST", "/fine/").status_code != 200
    assert ask(front, "POST", "/none").status_code == 404
    answer = ask(front, "POST", "/below/fine?k=3", root_path="/below")
    assert (answer.status_code, answer.content, answer.headers["x-path"]) == (200, b"photok=3", "/below/fine")


@pytest.mark.parametrize("path", ["/none", "/counted/{number}"])
def test_a_route_that_needs_more_than_the_request_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no POST route"):
        Front(api_of(), [path])
