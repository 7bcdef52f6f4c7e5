"""An index spread over real deployments of Ray Serve: equal answers; a part that is killed is said, and comes back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray

from retrieval.search.settings import IndexConfig
from tests.support.asked import run
from tests.support.service import running_service
from tests.support.versions import Expected, expected_of, publish_another
from tests.support.workspace import Workspace, make_workspace

PARTS = 3
COMES_BACK_S = 240.0  # a busy machine starts a replica in 45 s


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("parts"), index=IndexConfig(num_shards=PARTS))


def form(photo: Path) -> Any:
    return {"photo": ("a.jpg", photo.read_bytes()), "options": (None, '{"k": 9, "expand": 2}', "application/json")}


def ask(client: httpx.Client, photo: Path) -> httpx.Response:
    return client.post("/v1/search", files=form(photo))


def kill_part(number: int) -> None:
    """As kill -9 does; Serve starts another."""
    named: list[Any] = ray.util.list_named_actors(all_namespaces=True)
    (actor,) = [one for one in named if f"#Part{number}#" in one["name"]]
    ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]))


def test_answers_are_equal_and_a_killed_part_is_never_left_out(
    ray_local: None, made: Workspace, tmp_path: Path
) -> None:
    photos = list(made.photos.values())[:4]
    want: list[Expected] = []

    async def whole(_: object, client: httpx.AsyncClient) -> None:
        want.extend([expected_of((await client.post("/v1/search", files=form(photo))).json()) for photo in photos])

    run(made, whole)
    with running_service(tmp_path, made, index_parts=PARTS, watch_s=0.2) as spread:
        client = spread.client
        assert [one.differs(ask(client, photo).json()) for one, photo in zip(want, photos, strict=True)] == [""] * 4
        assert client.get("/v1/info").json()["index_parts"] == PARTS

        kill_part(2)
        began, statuses = time.monotonic(), []
        while len(statuses) < 3 or statuses[-3:] != [200] * 3:
            response = ask(client, photos[0])
            statuses.append(response.status_code)
            if response.status_code == 200:
                assert want[0].differs(response.json()) == "", "an answer without a part of the index"
            else:
                error = response.json()["error"]
                assert (response.status_code, error["reason"]) == (503, "unavailable")
                assert "Part 2 of 3 of the index is away" in error["message"]
                assert "retry-after" in response.headers
            assert time.monotonic() - began < COMES_BACK_S, statuses
            time.sleep(0.05)
        assert 503 in statuses
        print(f"{statuses.count(503)} refused, whole again after {time.monotonic() - began:.1f} s")

        name = publish_another(made, 1, shards=PARTS)
        while (answer := ask(client, photos[0]).json())["version"] != name:
            assert want[0].differs(answer) == ""
            assert time.monotonic() - began < 2 * COMES_BACK_S
            time.sleep(0.05)
        assert want[0].differs(answer) == "fingerprints"
