"""The deployment that HTTP reaches: each replica answers whole queries, from bytes to names, in one process.

A hop between replicas costs as much as a search, so there is none. What may crash or hang runs in processes of the
replica's own (`serve.photos`).
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from serve import edge
from serve.engine.versions import OneVersion
from serve.front import Front
from serve.guard import Guard, describe
from serve.mirror import Mirror
from serve.service import Service
from serve.settings import ServeArgs


def build_api(service: Service) -> FastAPI:
    """All routes, around one service. No Ray in it: a test, or another server, may ask it as it is."""
    from serve.routes import (
        adding,
        admin,
        batch,
        duplicates,
        faces,
        images,
        info,
        legacy,
        page,
        people,
        search,
        verify,
    )

    api = edge.new_api(service.metrics)
    for routes in (
        search,
        batch,
        verify,
        faces,
        adding,
        images,
        people,
        duplicates,
        info,
        admin,
        legacy,
        page,
    ):
        routes.add(api, service)
    describe(api.openapi())  # it is made once, and kept
    api.add_middleware(OneVersion, versions=service.versions)
    api.add_middleware(Guard, ring=service.keys, refused=service.metrics.refused)
    return api


def build_front(service: Service) -> Front:
    """The same as it is served, with the short way to what is asked most."""
    return Front(build_api(service), ["/v1/search"])


class Search:
    """One replica."""

    async def __init__(self, args: ServeArgs, *parts: Any) -> None:  # type: ignore[misc]
        """Args: parts: handles of the parts of the index; none: the replica holds all of it."""
        self._service = await Service.open(args, _replica_name(), parts)
        self._mirror = Mirror(self._service.metrics)
        self._mirror.start()

    def __serve_build_asgi_app__(self) -> Front:
        """Ray Serve asks for the routes once this replica's constructor is done."""
        return build_front(self._service)

    async def check_health(self) -> None:
        """Ray Serve replaces a replica that raises here time and again. Only for what a fresh one would not have.

        Raises: RuntimeError.
        """
        parts = (await self._service.ready()).parts
        failed = [f"{name}: {parts[name].why}" for name in ("photos", "model") if not parts[name].ok]
        if failed:
            raise RuntimeError(f"A replica has failed. {'; '.join(failed)}")

    def __del__(self) -> None:
        if hasattr(self, "_mirror"):
            self._mirror.close()
        if hasattr(self, "_service"):
            self._service.close()


def _replica_name() -> str:
    from ray import serve

    context: Any = serve.get_replica_context()
    return context.replica_id.unique_id
