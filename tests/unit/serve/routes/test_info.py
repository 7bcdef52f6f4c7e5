"""What is loaded, whether it is well, what is counted."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from serve.schemas import ServiceInfo
from serve.service import Service
from tests.support.inside import inside
from tests.support.workspace import Workspace, make_workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("info"), num_identities=2)


def run(made: Workspace, work: Callable[[Service, httpx.AsyncClient], Awaitable[None]], **more: Any) -> None:
    async def all_of_it() -> None:
        async with inside(made, **more) as (service, client):
            await work(service, client)

    asyncio.run(all_of_it())


def test_info_says_what_is_loaded_and_what_is_refused(made: Workspace) -> None:
    async def work(service: Service, client: httpx.AsyncClient) -> None:
        info = ServiceInfo.model_validate((await client.get("/v1/info")).json())
        pair = service.versions.current.pair
        assert (info.model.fingerprint, info.index.fingerprint) == (pair.model_fingerprint, pair.index_fingerprint)
        assert (info.collection, info.version) == (pair.collection_fingerprint, service.versions.current.name)
        assert (info.model.engine, info.model.crop, info.labels) == ("torch", "face", 2)
        assert (info.limits.max_k, info.limits.max_queue, info.defaults.expand) == (12, 5, 2)
        assert (info.features.faces, info.features.box, info.features.expand) == (True, False, True)
        assert (info.calibration, info.replica) == (None, "local")

    run(made, work, max_k=12, max_queue=5, expand=2)


def test_readiness_is_asked_of_the_parts(made: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(service: Service, client: httpx.AsyncClient) -> None:
        async def ready() -> httpx.Response:
            service._ready = None  # what counts for a second
            return await client.get("/readyz")

        fine = await ready()
        assert fine.status_code == 200 and set(fine.json()["parts"]) >= {"photos", "model", "index", "gallery"}
        assert (await client.get("/health")).json() == {"status": "ok"}

        def gone(*_: object) -> bytes:
            raise OSError("secret place")

        version = service.versions.current
        monkeypatch.setattr(version.gallery, "read_one", gone)
        ill = await ready()
        assert ill.status_code == 503 and ill.json()["status"] == "failed"
        assert not ill.json()["parts"]["gallery"]["ok"] and ill.json()["parts"]["index"]["ok"]
        assert "secret" not in ill.text
        health = await client.get("/health")
        assert health.status_code == 503 and health.json()["error"]["reason"] == "unavailable"
        assert health.headers["retry-after"] == "4" and "gallery" in health.json()["error"]["message"]
        monkeypatch.undo()
        assert (await ready()).status_code == 200
        assert (await client.get("/livez")).json() == {"status": "ok"}

    run(made, work, retry_after_s=4)


def test_a_service_whose_processes_for_photos_hang_is_not_ready_until_they_are_replaced(made: Workspace) -> None:
    async def work(service: Service, client: httpx.AsyncClient) -> None:
        for pid in service.photos.pids:
            os.kill(pid, signal.SIGSTOP)
        service._ready = None
        assert (await client.get("/readyz")).status_code == 200, "nobody could know before it is asked"
        async with asyncio.timeout(60):
            while service.photos.num_alive == 0:
                service._ready = None
                assert (await client.get("/readyz")).status_code == 503
                await asyncio.sleep(0.05)

    run(made, work, photo_timeout_s=1.0)


def test_what_was_said_counts_for_a_second(made: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(service: Service, client: httpx.AsyncClient) -> None:
        asked = []
        check = service.versions.current.check_model

        async def counted() -> None:
            asked.append(1)
            await check()

        monkeypatch.setattr(service.versions.current, "check_model", counted)
        await asyncio.gather(*(client.get("/readyz") for _ in range(5)))
        assert len(asked) == 1

    run(made, work)


def test_metrics_are_prometheus_text(made: Workspace) -> None:
    async def work(service: Service, client: httpx.AsyncClient) -> None:
        response = await client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=")
        for name in ("uploads", "upload_bytes", "queries", "photos_waiting", "photo_processes", "loaded"):
            assert f"retrieval_{name}{{" in response.text
        assert service.versions.current.name in response.text

    run(made, work)
