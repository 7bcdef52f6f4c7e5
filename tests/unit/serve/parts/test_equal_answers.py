"""A service whose index is spread over parts gives the answers of one that holds all of it, and says what it lacks."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from retrieval.artifacts.published import go_to, history
from retrieval.search.settings import IndexConfig
from serve.parts import fanout
from serve.parts.part import Part
from tests.support.inside import inside, settings
from tests.support.parted import parts_here
from tests.support.versions import expected_of, publish_another
from tests.support.workspace import Workspace, make_workspace

PARTS = 3
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture
def made(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path, num_identities=6, index=IndexConfig(num_shards=PARTS))


def questions(made: Workspace) -> list[dict[str, Any]]:
    """Options of searches: every way in which the index is asked."""
    ids = sorted(made.photos)
    some = {"label": [made.labels[ids[0]], made.labels[ids[-1]]]}
    return [
        {"k": 7},
        {"k": 100},
        {"k": 5, "filter": some},
        {"k": 5, "filter": {"image_id": ids[3:5]}},
        {"k": 6, "expand": 4},
        {"k": 6, "expand": 4, "filter": some},
        {"k": 4, "image_id": ids[2]},
        {"k": 9, "image_ids": [{"image_id": ids[1]}, {"image_id": ids[8], "weight": -0.5}]},
        {"k": 9, "image_ids": [{"image_id": ids[1]}, {"image_id": ids[7]}], "filter": some, "expand": 2},
    ]


async def answers(made: Workspace, client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Of all questions, to a photo where they name no image; without the seconds they took."""
    photo, found = list(made.photos.values())[5].read_bytes(), []
    for options in questions(made):
        if "image_id" in options or "image_ids" in options:
            response = await client.post("/v1/search", json=options)
        else:
            form = {"photo": ("a.jpg", photo), "options": (None, json.dumps(options), "application/json")}
            response = await client.post("/v1/search", files=form)
        assert response.status_code == 200, response.text
        found.append({name: value for name, value in response.json().items() if name != "seconds"})
    return found


def test_one_part_and_three_answer_the_same_also_after_photos_came_and_went(made: Workspace) -> None:
    """Ids, ranks, scores, decisions: all of every answer."""
    new, gone = next(iter(made.photos.values())).read_bytes(), sorted(made.photos)[4]

    async def change(client: httpx.AsyncClient) -> None:
        added = await client.post("/v1/images?image_id=new/one.jpg&label=new", content=new, headers=JPEG)
        assert added.status_code == 200 and added.json()["added"] == 1, added.text
        assert (await client.delete(f"/v1/images/{gone.replace('/', '%2F')}")).status_code == 200

    async def work() -> None:
        async with inside(made) as (_, whole), inside(made, index_parts=PARTS) as (_, spread):
            before = await answers(made, whole)
            assert await answers(made, spread) == before
            await change(whole)
            after = await answers(made, whole)
            assert await answers(made, spread) == after
            assert after != before and "new/one.jpg" in {one["image_id"] for one in after[1]["results"]}
            assert gone not in {one["image_id"] for one in after[1]["results"]}
            info = (await spread.get("/v1/info")).json()
            assert (info["index_parts"], (await whole.get("/v1/info")).json()["index_parts"]) == (PARTS, 1)

    asyncio.run(work())


def test_a_part_that_is_lost_is_said_and_counted_and_answers_again(
    made: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "_LOOK_AGAIN_S", 0.05)
    photo = list(made.photos.values())[5].read_bytes()

    async def work() -> None:
        with parts_here(settings(made, index_parts=PARTS)) as parts:
            async with inside(made, parts=parts, index_parts=PARTS) as (service, client):

                async def ask() -> httpx.Response:
                    return await client.post("/v1/search?k=5", content=photo, headers=JPEG)

                want = expected_of((await ask()).json())
                assert (await client.get("/readyz")).status_code == 200
                parts.lose(1)
                lost = await ask()
                assert (lost.status_code, lost.json()["error"]["reason"]) == (503, "unavailable")
                assert "Part 2 of 3 of the index is away" in lost.json()["error"]["message"]
                assert int(lost.headers["retry-after"]) >= 1
                old = await client.post("/search?k=5", content=photo, headers=JPEG)
                batch = await client.post("/v1/search/batch", files=[("photo", ("a.jpg", photo))])
                assert (old.status_code, batch.status_code) == (503, 200)
                assert [one["status"] for one in batch.json()["items"]] == [503]
                # What needs no index goes on: photos come and go, and are shown.
                added = await client.post("/v1/images?image_id=new/one.jpg", content=photo, headers=JPEG)
                assert added.status_code == 200
                assert (await client.get("/v1/images/new%2Fone.jpg/thumbnail")).status_code == 200
                assert (await client.delete("/v1/images/new%2Fone.jpg")).status_code == 200
                service._ready = None
                ready = await client.get("/readyz")
                assert ready.status_code == 503 and "Part 2 of 3" in ready.json()["parts"]["index"]["why"]
                assert [name for name, one in ready.json()["parts"].items() if not one["ok"]] == ["index"]
                counted = (await client.get("/metrics")).text
                assert 'retrieval_index_part_failures_total{part="2",replica="local",why="lost"} 1.0' in counted
                assert 'retrieval_index_parts_away{replica="local"} 1.0' in counted
                parts.start(1)
                began = time.monotonic()
                while (again := await ask()).status_code != 200:
                    assert again.status_code == 503 and time.monotonic() - began < 30
                    await asyncio.sleep(0.01)
                assert want.differs(again.json()) == ""

    asyncio.run(work())


def test_no_answer_is_of_two_versions_while_the_parts_hold_both(made: Workspace) -> None:
    first = history(made.folder)[0].version
    second = publish_another(made, 1, shards=PARTS)
    photo = list(made.photos.values())[5].read_bytes()

    async def work() -> None:
        with parts_here(settings(made, index_parts=PARTS)) as parts:
            async with inside(made, parts=parts, index_parts=PARTS, watch_s=0) as (service, client):

                async def ask() -> dict[str, Any]:
                    return (await client.post("/v1/search?k=9", content=photo, headers=JPEG)).json()

                known = {}
                for name in (second, first):
                    go_to(made.folder, name)
                    await service.watch.look()
                    known[name] = expected_of(await ask())
                stop, wrong, seen = asyncio.Event(), [], set()

                async def keep_asking() -> None:
                    while not stop.is_set():
                        answer = await ask()
                        seen.add(answer["version"])
                        wrong.extend([why] if (why := known[answer["version"]].differs(answer)) else [])

                asking = [asyncio.create_task(keep_asking()) for _ in range(3)]
                for turn in range(6):
                    go_to(made.folder, (second, first)[turn % 2])
                    await service.watch.look()
                    await asyncio.sleep(0.02)
                stop.set()
                await asyncio.gather(*asking)
                assert wrong == [] and seen == {first, second}
                assert [len(part._opened) for part in parts.parts] == [2] * PARTS
                assert service.parts is not None and len(service.parts._open) == 1

    asyncio.run(work())


def test_an_index_of_fewer_shards_than_parts_is_refused_with_the_way_out(made: Workspace) -> None:
    async def work() -> None:
        async with inside(made, index_parts=PARTS + 1):
            raise AssertionError("it cannot answer")

    with pytest.raises(ValueError, match=r"3 shards cannot be spread over 4 parts.*--index.num-shards 4"):
        asyncio.run(work())


def test_a_version_is_not_taken_up_while_a_part_is_away_and_is_later(
    made: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "_LOOK_AGAIN_S", 0.05)

    async def work() -> None:
        with parts_here(settings(made, index_parts=PARTS)) as parts:
            async with inside(made, parts=parts, index_parts=PARTS, watch_s=0) as (service, _):
                old = service.versions.current.name
                new = publish_another(made, 1, shards=PARTS)
                parts.lose(2, "hangs")
                with monkeypatch.context() as patch:
                    patch.setattr(fanout, "_STARTS_S", 0.2)
                    await service.watch.look()
                assert service.versions.current.name == old and service.watch.refused is None
                parts.start(2)
                await service.watch.look()
                assert service.versions.current.name == new

    asyncio.run(work())


def test_a_part_that_was_never_asked_holds_nothing(made: Workspace) -> None:
    assert Part(settings(made, index_parts=PARTS), 0)._opened == {}
