"""The addresses from before /v1 answer as they always did."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from serve.service import Service
from tests.support.inside import inside
from tests.support.workspace import Workspace, make_workspace

JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("legacy"))


def run(made: Workspace, work: Callable[[Service, httpx.AsyncClient], Awaitable[None]], **more: Any) -> None:
    async def all_of_it() -> None:
        async with inside(made, **more) as (service, client):
            await work(service, client)

    asyncio.run(all_of_it())


def refusal(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["reason"]


def test_a_search_answers_with_rows(made: Workspace) -> None:
    image_id, path = list(made.photos.items())[5]

    async def work(service: Service, client: httpx.AsyncClient) -> None:
        answer = (await client.post("/search?k=3&expand=2", content=path.read_bytes(), headers=JPEG)).json()
        assert {"query", "results", "expansion", "model", "index", "seconds"} <= set(answer)
        assert answer["results"][0]["image_id"] == image_id
        assert answer["expansion"] == {"num": 2, "alpha": 3.0}
        row = service.versions.current.gallery.row_of(image_id)
        assert answer["results"][0]["thumbnail"] == f"/gallery/{row}"
        assert len((await client.post("/search", content=path.read_bytes())).json()["results"]) == 4
        for wrong in ("k=5", "k=0", "expand=9", "alpha=21", "box=1,2,3", "box=1,2,30,40"):
            assert refusal(await client.post(f"/search?{wrong}", content=b"x", headers=JPEG)) == (422, "bad-parameter")
        for kind in ("application/json", "multipart/form-data; boundary=x"):
            asked = await client.post("/search", content=b"x", headers={"Content-Type": kind})
            assert refusal(asked) == (415, "not-a-photo")

    run(made, work, max_k=4, max_expand=8)


def test_crops_by_row(made: Workspace) -> None:
    async def work(service: Service, client: httpx.AsyncClient) -> None:
        for row in (0, 19):
            response = await client.get(f"/gallery/{row}")
            assert (response.status_code, response.headers["content-type"]) == (200, "image/jpeg")
            assert response.content == service.versions.current.gallery.jpeg_at(row)
            assert response.headers["cache-control"] == "private, no-cache"
        assert (await client.get("/gallery/00000000001")).content == (await client.get("/gallery/1")).content
        for wrong in ("20", "1" * 13, "-1", "+1", "1.0", "%201", "%D9%A1", "x", "1%0A"):
            assert refusal(await client.get(f"/gallery/{wrong}")) == (404, "not-found")
        seen = {"If-None-Match": (await client.get("/gallery/3")).headers["etag"]}
        assert service.versions.current.pair.index_fingerprint[:16] in seen["If-None-Match"]
        assert (await client.get("/gallery/3", headers=seen)).status_code == 304
        assert (await client.get("/gallery/4", headers=seen)).status_code == 200

    run(made, work)


def test_info_has_its_old_form(made: Workspace) -> None:
    async def work(service: Service, client: httpx.AsyncClient) -> None:
        info = (await client.get("/info")).json()
        assert set(info) == {"model", "index", "collection", "limits", "defaults"}
        assert info["collection"] == service.versions.current.pair.collection_fingerprint
        assert set(info["limits"]) == {"max_body_bytes", "max_pixels", "max_k", "max_expand", "max_queue", "timeout_s"}
        assert set(info["model"]) == {"fingerprint", "embedding_dim", "device", "crop"}

    run(made, work)
