"""Two hosts serve one gallery from an object store: each sees what the other changed, and both outlive the store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pyarrow.fs as pafs
import pytest

from retrieval.artifacts.folder import Folder
from serve.service import Service
from tests.support.asked import refusal
from tests.support.faulty_proxy import FaultyProxy
from tests.support.inside import inside
from tests.support.object_store import ObjectStore
from tests.support.workspace import Workspace, make_workspace


@pytest.fixture
def proxy(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Before the store."""
    with FaultyProxy(("127.0.0.1", s3.port)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{proxy.address}")
        yield proxy


@pytest.fixture
def made(tmp_path: Path, s3: ObjectStore, proxy: FaultyProxy) -> Workspace:
    made = make_workspace(tmp_path / "local", num_identities=2)
    bucket, local = Folder(s3.bucket()) / "w", pafs.LocalFileSystem()
    pafs.copy_files(made.folder.path, bucket.path, source_filesystem=local, destination_filesystem=bucket.fs)
    return Workspace(folder=bucket, photos=made.photos, labels=made.labels)


async def until_seen(client: httpx.AsyncClient, live: int) -> None:
    async with asyncio.timeout(60):
        while (await client.get("/v1/images")).json()["live"] != live:
            await asyncio.sleep(0.05)


def test_hosts_follow_each_other_and_outlive_the_store(
    made: Workspace, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *_ = [path.read_bytes() for path in made.photos.values()]

    async def work(one: httpx.AsyncClient, other: httpx.AsyncClient, service: Service) -> None:
        assert (await one.post("/v1/images?image_id=a.jpg&label=ada", content=first)).json()["added"] == 1
        assert (await one.post("/v1/search?k=50", content=first)).json()["live"] == 1, "at once, where it was added"
        await until_seen(other, 1)
        found = (await other.post("/v1/search?k=50", content=first)).json()["results"]
        assert "a.jpg" in {hit["image_id"] for hit in found}
        assert (await other.get("/v1/info")).json()["features"]["add"] is True

        proxy.injected.share, proxy.injected.faults = 1.0, ("reset",)
        added = await other.post("/v1/images?image_id=b.jpg", content=second)
        assert refusal(added) == (503, "unavailable") and added.headers["retry-after"] == "1"
        assert (await other.post("/v1/search?k=50", content=first)).json()["results"] == found
        assert refusal(await one.delete("/v1/images/a.jpg")) == (503, "unavailable")
        assert "retrieval_changes_unseen_seconds" in (await one.get("/metrics")).text
        assert service.versions.current.gallery.seq == 1

        proxy.injected.share = 0.0
        assert (await other.post("/v1/images?image_id=b.jpg", content=second)).status_code == 200
        assert (await other.delete("/v1/images/a.jpg")).json()["pending"][-1]["what"] == "live"
        await until_seen(one, 3)
        left = {hit["image_id"] for hit in (await one.post("/v1/search?k=50", content=first)).json()["results"]}
        assert "b.jpg" in left and "a.jpg" not in left

    async def both() -> None:
        async with AsyncExitStack() as stack:
            opened = []
            for host in ("one", "other"):
                monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / host))
                opened.append(await stack.enter_async_context(inside(made, watch_s=0)))
            await work(opened[0][1], opened[1][1], opened[0][0])

    asyncio.run(both())
