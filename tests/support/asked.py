"""A whole service, asked over ASGI by one coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from serve.service import Service
from tests.support.inside import inside
from tests.support.workspace import Workspace

Client = httpx.AsyncClient
Work = Callable[[Service, Client], Awaitable[None]]


def run(made: Workspace, work: Work, root_path: str = "", **settings: Any) -> None:
    """Start a service on `made`, let `work` ask it, and end it."""

    async def all_of_it() -> None:
        async with inside(made, root_path, **settings) as (service, client):
            await work(service, client)

    asyncio.run(all_of_it())


def refusal(response: httpx.Response) -> tuple[int, str]:
    """(status, reason) of what was not answered."""
    return response.status_code, response.json()["error"]["reason"]
