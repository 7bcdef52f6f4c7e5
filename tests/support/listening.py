"""The whole service in a thread of this process, listening on loopback: for clients that speak HTTP."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI

from serve.replica import build_front
from serve.service import Service
from serve.settings import ServeArgs


@dataclass(slots=True)
class Listening:
    """address: http://127.0.0.1:port. api, service: what answers there; they belong to the thread's event loop."""

    address: str
    api: FastAPI
    service: Service


@dataclass(slots=True)
class _Thread:
    args: ServeArgs
    ready: threading.Event = field(default_factory=threading.Event)
    end: asyncio.Event | None = None
    loop: asyncio.AbstractEventLoop | None = None
    made: Listening | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self.ready.set()

    async def _serve(self) -> None:
        service = await Service.open(self.args)
        try:
            front = build_front(service)
            listener = socket.create_server(("127.0.0.1", 0))
            server = uvicorn.Server(uvicorn.Config(front, log_level="critical", lifespan="off"))
            self.loop, self.end = asyncio.get_running_loop(), asyncio.Event()
            self.made = Listening(f"http://127.0.0.1:{listener.getsockname()[1]}", front.api, service)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            self.ready.set()
            await self.end.wait()
            server.should_exit = True
            await serving
        finally:
            service.close()


@contextmanager
def listening(**settings: Any) -> Iterator[Listening]:
    """Args: settings: of `ServeArgs`."""
    work = _Thread(ServeArgs(**{"device": "cpu", "precision": "fp32", "engine": "torch", **settings}))
    with ThreadPoolExecutor(1, thread_name_prefix="service") as pool:
        running = pool.submit(work.run)
        work.ready.wait()
        if work.made is None:
            running.result()
            raise RuntimeError("The service ended before it listened.")
        try:
            yield work.made
        finally:
            assert work.loop is not None and work.end is not None
            work.loop.call_soon_threadsafe(work.end.set)
