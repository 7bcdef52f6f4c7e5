"""The routes of a replica: all there, all described."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from serve import guard, keys
from serve.replica import build_api
from tests.support.inside import inside
from tests.support.workspace import make_workspace


def test_every_route_is_there_and_every_answer_described(tmp_path: Path) -> None:
    made = make_workspace(tmp_path, num_identities=2)

    async def work() -> None:
        async with inside(made) as (service, client):
            paths = (await client.get("/openapi.json")).json()["paths"]
            assert {"/v1/search", "/v1/info", "/livez", "/readyz", "/metrics", "/search", "/info"} <= set(paths)
            kinds = paths["/v1/search"]["post"]["requestBody"]["content"]
            assert {"image/*", "multipart/form-data", "application/json"} <= set(kinds)
            asked = {one["name"]: one["schema"] for one in paths["/v1/search"]["post"]["parameters"]}
            assert set(asked) == {
                *("k", "min_score", "min_probability", "far", "expand", "alpha", "rerank", "evidence", "crop"),
                *("face", "box", "filter"),
            }
            assert (asked["k"]["maximum"], asked["expand"]["maximum"]) == (service.args.max_k, service.args.max_expand)
            assert "429" in paths["/v1/search"]["post"]["responses"]
            assert build_api(service).openapi()["info"]["title"] == "Image retrieval"
            assert (await client.get("/")).headers["content-type"].startswith("text/html")

    asyncio.run(work())


def test_a_key_that_is_made_shuts_the_door_while_the_service_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "LOOK_EVERY_S", -1.0)
    made = make_workspace(tmp_path, num_identities=2)
    photo = next(iter(made.photos.values())).read_bytes()

    async def work() -> None:
        async with inside(made) as (_, client):
            assert (await client.post("/v1/search", content=photo)).status_code == 200
            token = keys.create(Folder.of(made.folder), "shop", "search")
            for path in ("/v1/search", "/search", "/v1/nothing"):
                refused = await client.post(path, content=photo)
                assert (refused.status_code, refused.json()["error"]["reason"]) == (401, "no-key")
            assert (await client.get("/")).status_code == 200
            answered = await client.post("/v1/search", content=photo, headers={"x-api-key": token})
            assert answered.status_code == 200
            admin = keys.create(Folder.of(made.folder), "boss", "admin")
            counted = (await client.get("/metrics", headers={"x-api-key": admin})).text
            assert 'retrieval_refusals_total{reason="no-key",replica="local"} 3.0' in counted

    asyncio.run(work())
