"""The routes of a replica: all there, all described."""

from __future__ import annotations

import asyncio
from pathlib import Path

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
            assert "429" in paths["/v1/search"]["post"]["responses"]
            assert build_api(service).openapi()["info"]["title"] == "Image retrieval"
            assert (await client.get("/")).headers["content-type"].startswith("text/html")

    asyncio.run(work())
