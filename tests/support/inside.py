"""The whole service in this process, without Ray: asked over ASGI, as a replica is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import httpx

from serve.replica import build_front
from serve.service import Service
from serve.settings import ServeArgs
from tests.support.parted import PartsHere, parts_here
from tests.support.workspace import Workspace


def settings(made: Workspace, **more: Any) -> ServeArgs:
    """For a small service that gives equal scores everywhere."""
    return ServeArgs(**{"workspace": str(made.folder), "device": "cpu", "precision": "fp32", "engine": "torch", **more})


@asynccontextmanager
async def inside(
    made: Workspace, root_path: str = "", parts: PartsHere | None = None, **more: Any
) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """A service and a client that asks it. Args: parts: of its index; None: its own, where the settings want any."""
    args = settings(made, **more)
    own = parts_here(args) if parts is None and args.index_parts > 1 else nullcontext(parts)
    with own as held:
        service = await Service.open(args, parts=() if held is None else held.handles)
        try:
            transport = httpx.ASGITransport(build_front(service), raise_app_exceptions=False, root_path=root_path)
            async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
                yield service, client
        finally:
            service.close()
