"""Which version answers is changed by a request, in the workspace too, so that every replica follows."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from retrieval.artifacts.published import CURRENT, history, publish
from retrieval.live.snapshots.snapshot import check
from tests.support.inside import inside
from tests.support.versions import flip, make_versions


def test_reload_takes_up_goes_back_and_goes_anywhere(tmp_path: Path) -> None:
    made, names = make_versions(tmp_path, 3, num_identities=2)

    async def work() -> None:
        async with inside(made, watch_s=0) as (service, client), inside(made, watch_s=0.05) as (other, _):

            async def reload(**body: str) -> tuple[str, bool, str]:
                response = await client.post("/v1/admin/reload", json=body)
                assert response.status_code == 200, response.text
                answer = response.json()
                assert answer["version"] == service.versions.current.name
                return answer["version"], answer["swapped"], answer["why"]

            assert await reload() == (names[2], False, "It is the one that answers already.")
            assert await reload(version="previous") == (names[1], True, "")
            assert history(made.folder)[0].version == names[1], "the workspace says so too"
            assert await reload(version="previous") == (names[0], True, "")
            assert await reload(version=names[2][:5]) == (names[2], True, "")
            assert await reload(version=names[2]) == (names[2], False, "It is the one that answers already.")
            assert (await client.post("/v1/admin/reload")).json()["version"] == names[2], "a body is not needed"
            for odd in ("0123456789ab", "../../etc", "x"):
                response = await client.post("/v1/admin/reload", json={"version": odd})
                assert (response.status_code, response.json()["error"]["reason"]) == (404, "not-found")
                assert names[0] in response.json()["error"]["message"]
            assert (await client.post("/v1/admin/reload", json={"version": 3})).status_code == 422
            flip(made.folder, "index/1/ids.parquet")
            version, swapped, why = await reload(version=names[1])
            assert (version, swapped) == (names[2], False) and "ids.parquet is not the file that was sealed" in why
            assert history(made.folder)[0].version == names[2], "a bad one is not made current"
            assert (await client.get("/v1/info")).json()["refused"]["version"] == names[1]
            await reload(version=names[0])
            for _ in range(200):
                if other.versions.current.name == names[0]:
                    break
                await asyncio.sleep(0.05)
            assert other.versions.current.name == names[0], "another replica follows"

    asyncio.run(work())


def test_what_is_published_beside_a_version_is_taken_up_as_well(tmp_path: Path) -> None:
    """The same three folders at another place: paths matter, since the old ones may be gone."""
    made, names = make_versions(tmp_path, 1, num_identities=2)
    root = Path(made.folder.path)

    async def work() -> None:
        async with inside(made, watch_s=0) as (service, _):
            first = service.versions.current
            (root / "index/test").rename(root / "index/moved")
            folder = made.folder
            publish(
                folder, collection=folder / "collection/test", model=folder / "model/test", index=folder / "index/moved"
            )
            await service.watch.look()
            assert service.versions.current is not first and service.versions.current.name == names[0]

    asyncio.run(work())


def test_a_workspace_that_cannot_be_written_keeps_its_version(tmp_path: Path) -> None:
    made, names = make_versions(tmp_path, 2, num_identities=2)
    lock = Path(made.folder.path) / f"{CURRENT}.lock"
    lock.unlink()
    lock.mkdir()  # nobody may open it to write, root neither

    async def work() -> None:
        async with inside(made, watch_s=0) as (service, client):
            answer = (await client.post("/v1/admin/reload", json={"version": "previous"})).json()
            assert "cannot be read or written" in answer["why"] and service.versions.current.name == names[1]
            assert CURRENT in os.listdir(made.folder.path)

    asyncio.run(work())


def test_a_snapshot_is_taken_while_it_runs_and_is_whole(tmp_path: Path) -> None:
    made, names = make_versions(tmp_path, 1, num_identities=2)

    async def work() -> None:
        async with inside(made, watch_s=0) as (_, client):
            answer = (await client.post("/v1/admin/snapshot")).json()
            assert answer["path"] == f"snapshots/{answer['name']}" and answer["files"] == 3
            assert check(made.folder, answer["name"]).version == names[0]
            assert sum((made.folder / answer["path"]).list().values()) == answer["bytes"]

    asyncio.run(work())
