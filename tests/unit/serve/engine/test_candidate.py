"""A candidate is asked a share of the queries after their answers; it delays none, and how far it agrees is counted."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import httpx
import pytest

from retrieval.artifacts.published import go_to
from retrieval.search.agreement import Agreement, read_agreements
from tests.support.inside import inside
from tests.support.versions import make_versions
from tests.support.waiting import eventually
from tests.support.workspace import Workspace


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, list[str]]:
    return make_versions(tmp_path_factory.mktemp("versions"), 2)


async def ask(client: httpx.AsyncClient, photo: Path, more: str = "") -> httpx.Response:
    response = await client.post(f"/v1/search?k=3{more}", content=photo.read_bytes())
    assert response.status_code == 200, response.text
    return response


def test_a_share_is_compared_counted_and_written(ready: tuple[Workspace, list[str]]) -> None:
    made, (old, new) = ready
    photos = list(made.photos.values())[:6]

    async def work() -> None:
        async with inside(made, watch_s=0, candidate=old[:6], candidate_share=1.0) as (service, client):
            candidate = service.candidate
            assert candidate is not None
            await eventually(lambda: candidate.name == old)
            for number, photo in enumerate(photos, start=1):
                answer = (await ask(client, photo)).json()
                assert answer["version"] == new, "the candidate answers nobody"
                await eventually(lambda n=number: candidate.counted().get(new, Agreement()).queries == n)
            counts = candidate.counted()[new]
            # Every photo is of the gallery, and both versions find it.
            assert counts.same_first == len(photos) and 0 < counts.overlap <= len(photos)
            assert abs(counts.score_difference) < 0.01
            told = service.metrics.text().decode()
            assert f'retrieval_candidate_queries_total{{replica="local",what="compared"}} {len(photos)}.0' in told
            assert f'retrieval_candidate_same_first_total{{replica="local"}} {len(photos)}.0' in told
            for more in ("&expand=2", "&crop=true"):
                await ask(client, photos[0], more)
            assert (await client.get("/v1/info")).json()["candidate"] == {"version": old, "share": 1.0, "why": ""}
            await candidate.write()
            assert read_agreements(made.folder)[new, old].queries >= len(photos)
            go_to(made.folder, old)
            await service.watch.look()
            before = sum(one.queries for one in candidate.counted().values())
            assert (await ask(client, photos[0])).json()["version"] == old
            await asyncio.sleep(0.2)
            # The two before it may have been compared meanwhile; this one is not: it would be with itself.
            assert sum(one.queries for one in candidate.counted().values()) <= before + 2
            await eventually(lambda: service.versions.num_open == 1)
            go_to(made.folder, new)

    asyncio.run(work())


def test_no_share_compares_nothing_and_a_crowd_is_passed_by(ready: tuple[Workspace, list[str]]) -> None:
    made, (old, new) = ready
    photo = next(iter(made.photos.values()))

    async def work() -> None:
        async with inside(made, watch_s=0, candidate=old, candidate_share=0.0) as (service, client):
            assert service.candidate is not None
            await eventually(lambda: service.candidate.name == old)  # type: ignore[union-attr]
            for _ in range(5):
                await ask(client, photo)
            await asyncio.sleep(0.2)
            assert service.candidate.counted() == {}
        async with inside(made, watch_s=0, candidate=old, candidate_share=1.0, max_queue=12) as (service, client):
            assert service.candidate is not None
            await eventually(lambda: service.candidate.name == old)  # type: ignore[union-attr]
            free = threading.Event()  # until it is set, the candidate can do nothing
            held = asyncio.get_running_loop().run_in_executor(service.candidate._thread, free.wait)
            answers = await asyncio.gather(*(ask(client, photo) for _ in range(12)))
            assert {one.json()["version"] for one in answers} == {new}, "nobody waited"
            assert 'what="passed-by"} 7.0' in service.metrics.text().decode(), "one at work and four waiting"
            free.set()
            assert await held
            counted = service.candidate.counted
            await eventually(lambda: counted().get(new, Agreement()).queries == 5)

    asyncio.run(work())


def test_a_candidate_that_is_unfit_is_told_and_nothing_else_happens(ready: tuple[Workspace, list[str]]) -> None:
    made, (_, new) = ready

    async def work() -> None:
        async with inside(made, watch_s=0, candidate="0123456789ab") as (service, client):
            assert service.candidate is not None
            await eventually(lambda: bool(service.candidate.why_not))  # type: ignore[union-attr]
            info = (await client.get("/v1/info")).json()["candidate"]
            assert info["version"] is None and f"Choose one of: {ready[1][0]}, {new}" in info["why"]
            assert (await ask(client, next(iter(made.photos.values())))).json()["version"] == new

    asyncio.run(work())
