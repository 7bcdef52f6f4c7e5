"""What is published is taken up while queries are answered; what is unfit is refused, and the old one answers on."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import MANIFEST, read_manifest
from retrieval.artifacts.published import CURRENT, go_to, publish
from serve.service import Service
from tests.support.inside import inside
from tests.support.versions import Expected, edit, expected_of, flip, make_versions, publish_another
from tests.support.waiting import eventually
from tests.support.workspace import Workspace

NUM = 3


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, list[str]]:
    return make_versions(tmp_path_factory.mktemp("versions"), NUM)


@pytest.fixture
def made(ready: tuple[Workspace, list[str]], tmp_path: Path) -> Workspace:
    """A copy to be changed; its current version is the last."""
    there = shutil.copytree(ready[0].folder.path, tmp_path / "w")
    return Workspace(folder=Folder.of(there), photos=ready[0].photos, labels=ready[0].labels)


@pytest.fixture
def names(ready: tuple[Workspace, list[str]]) -> list[str]:
    return ready[1]


async def ask(client: httpx.AsyncClient, photo: Path) -> httpx.Response:
    return await client.post("/v1/search?k=5", content=photo.read_bytes(), headers={"content-type": "image/jpeg"})


async def known_answers(
    made: Workspace, names: list[str], service: Service, client: httpx.AsyncClient, photos: list[Path]
) -> dict[tuple[str, Path], Expected]:
    """(version, photo) -> what must be answered."""
    known = {}
    for name in names:
        go_to(made.folder, name)
        await service.watch.look()
        for photo in photos:
            answer = (await ask(client, photo)).json()
            assert answer["version"] == name
            known[name, photo] = expected_of(answer)
    assert len({known[name, photos[0]].scores for name in names}) == len(names), "versions must be told apart"
    return known


def test_fifty_swaps_under_load_fail_nobody_and_mix_nothing(made: Workspace, names: list[str]) -> None:
    photos = list(made.photos.values())[:4]

    async def work() -> Counter[str]:
        async with inside(made, watch_s=0) as (service, client):
            known = await known_answers(made, names, service, client, photos)
            seen, stop = Counter[str](), asyncio.Event()

            async def one(number: int) -> None:
                turn = number
                while not stop.is_set():
                    photo, turn = photos[turn % len(photos)], turn + 1
                    response = await ask(client, photo)
                    if response.status_code != 200:
                        seen[f"failed {response.status_code} {response.text[:80]}"] += 1
                        continue
                    answer = response.json()
                    differs = known[answer["version"], photo].differs(answer)
                    seen[f"mixed {differs}" if differs else answer["version"]] += 1

            clients = [asyncio.create_task(one(number)) for number in range(6)]
            for turn in range(50):
                go_to(made.folder, names[turn % NUM])
                await service.watch.look()
                assert service.versions.current.name == names[turn % NUM]
                await asyncio.sleep(0.01)
            stop.set()
            await asyncio.gather(*clients)
            await eventually(lambda: service.versions.num_open == 1)
            assert "retrieval_swaps_total" in service.metrics.text().decode()
            return seen

    seen = asyncio.run(work())
    assert set(seen) == set(names), seen
    assert sum(seen.values()) >= 50


def test_a_version_is_taken_up_by_itself_and_each_photo_is_found_by_it(made: Workspace, names: list[str]) -> None:
    photo = next(iter(made.photos.values()))

    async def work() -> None:
        async with inside(made, watch_s=0.05) as (service, client):
            assert (await ask(client, photo)).json()["version"] == names[-1]
            new = publish_another(made, 7, factory="IVF3,Flat")
            await eventually(lambda: service.versions.current.name == new)
            answer = (await ask(client, photo)).json()
            assert (answer["version"], answer["results"][0]["score"]) == (new, pytest.approx(1.0, abs=1e-3))
            info = (await client.get("/v1/info")).json()
            assert (info["version"], info["index"]["factory"], info["refused"]) == (new, "IVF3,Flat", None)

    asyncio.run(work())


def damage(made: Workspace, how: str, new: int) -> str:
    """Publish something bad, in folders called `new`. Returns what must be said of it."""
    root, where = made.folder, Path(made.folder.path)
    if how == "no text":
        (where / CURRENT).write_text("")
        return "cannot be read"
    if how == "half a text":
        (where / CURRENT).write_bytes((where / CURRENT).read_bytes()[:200])
        return "cannot be read"
    if how == "empty":
        (where / CURRENT).write_text('{"paths": {}, "fingerprints": {}}')
        return "cannot be read"
    publish_another(made, new)
    if how == "corrupt index":
        flip(root, f"index/{new}/shard-00000.faiss")
        return f"index/{new}/shard-00000.faiss is not the file that was sealed"
    if how == "corrupt model":
        flip(root, f"model/{new}/model.safetensors")
        return f"model/{new}/model.safetensors is not the file that was sealed"
    if how == "half an index":
        (root / f"index/{new}").remove("shard-00001.faiss")
        return "lacks shard-00001.faiss"
    if how == "not sealed":
        (root / f"index/{new}").remove(MANIFEST)
        return "No sealed index"
    if how == "replaced":
        edit(where / f"model/{new}" / MANIFEST, fingerprint="f" * 64)
        return "it was replaced since"
    assert how == "mismatched"  # sealed as if it were of this model: what the seal says is not true
    shutil.rmtree(where / f"model/{new}")
    shutil.copytree(where / "model/1", where / f"model/{new}")
    inputs = read_manifest(root / f"index/{new}").inputs
    edit(where / f"index/{new}" / MANIFEST, inputs={**inputs, "model": read_manifest(root / "model/1").fingerprint})
    places = {"collection": "collection/test", "model": f"model/{new}", "index": f"index/{new}"}
    publish(root, **{kind: root / place for kind, place in places.items()})
    return "does not give the vectors that the index holds"


BAD = (
    "no text",
    "half a text",
    "empty",
    "corrupt index",
    "corrupt model",
    "half an index",
    "not sealed",
    "replaced",
    "mismatched",
)


def test_what_is_unfit_is_refused_with_the_reason_and_the_old_one_answers_on(
    made: Workspace, names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    photo = next(iter(made.photos.values()))

    async def work() -> None:
        async with inside(made, watch_s=0) as (service, client):
            for number, how in enumerate(BAD, start=1):
                before = (await ask(client, photo)).json()
                said = damage(made, how, 10 + number)
                await service.watch.look()
                info = (await client.get("/v1/info")).json()
                assert info["refused"] is not None and said in info["refused"]["why"], how
                for _ in range(3):  # it is not tried again until something else is published
                    await service.watch.look()
                assert (await client.get("/v1/info")).json()["refused"]["at"] == info["refused"]["at"]
                after = (await ask(client, photo)).json()
                assert expected_of(before).differs(after) == "" and after["version"] == before["version"], how
                assert (await client.get("/readyz")).status_code == 200
                told = (await client.get("/metrics")).text.splitlines()
                assert f'retrieval_versions_refused_total{{replica="local",why="unfit"}} {2 * number - 1}.0' in told
                answer = (await client.post("/v1/admin/reload", json={})).json()
                assert said in answer["why"] and (answer["swapped"], answer["version"]) == (False, before["version"])
                assert said in caplog.text
                new = publish_another(made, 20 + number)
                await service.watch.look()
                info = (await client.get("/v1/info")).json()
                assert (info["version"], info["refused"]) == (new, None), how

    asyncio.run(work())


def test_a_replica_that_starts_on_a_bad_version_starts_with_the_one_before(made: Workspace, names: list[str]) -> None:
    said = damage(made, "corrupt model", 10)

    async def work() -> None:
        async with inside(made, watch_s=0.02) as (service, client):
            info = (await client.get("/v1/info")).json()
            assert info["version"] == names[-1] and said in info["refused"]["why"]
            await asyncio.sleep(0.3)
            assert (await client.get("/v1/info")).json()["refused"]["at"] == info["refused"]["at"], "not tried again"
            assert service.versions.num_open == 1

    asyncio.run(work())


@contextmanager
def away(folder: Folder) -> Iterator[None]:
    """The workspace is not there."""
    Path(folder.path).rename(f"{folder.path}-away")
    try:
        yield
    finally:
        Path(f"{folder.path}-away").rename(folder.path)


def test_a_workspace_that_is_away_changes_nothing_and_is_taken_up_when_it_is_back(
    made: Workspace, names: list[str]
) -> None:
    photo = next(iter(made.photos.values()))

    async def work() -> None:
        async with inside(made, watch_s=0) as (service, client):
            before = (await ask(client, photo)).json()
            images = (await client.get("/v1/images?limit=1000")).json()["images"]
            thumbnails = [one["thumbnail"] for one in images]
            with away(made.folder):
                await service.watch.look()
                assert expected_of(before).differs((await ask(client, photo)).json()) == ""
                said = {crop.status_code: crop for crop in [await client.get(one) for one in thumbnails]}
                assert set(said) <= {200, 503} and 503 in said, "some are in memory, none is half there"
                assert said[503].json()["error"]["reason"] == "unavailable"
                assert said[503].headers["retry-after"] == "1"
                answer = (await client.post("/v1/admin/reload", json={})).json()
                assert (answer["swapped"], answer["why"]) == (False, "Nothing is published.")
                assert (await client.post("/v1/admin/reload", json={"version": "previous"})).status_code == 404
            assert {(await client.get(one)).status_code for one in thumbnails} == {200}
            go_to(made.folder, names[0])
            await service.watch.look()
            assert service.versions.current.name == names[0] and service.watch.refused is None

    asyncio.run(work())


def test_storage_that_fails_is_tried_again_and_is_no_refusal(
    made: Workspace, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with inside(made, watch_s=0.02) as (service, client):
            await service.watch.look()
            real, fail = Folder.read_bytes, threading.Event()

            def read(folder: Folder, name: str) -> bytes:
                if fail.is_set() and name == CURRENT:
                    raise OSError("the store is away")
                return real(folder, name)

            monkeypatch.setattr(Folder, "read_bytes", read)
            fail.set()
            go_to_later = names[0]
            metric = 'retrieval_versions_refused_total{replica="local",why="storage"}'
            await eventually(lambda: metric in service.metrics.text().decode())
            answer = (await client.post("/v1/admin/reload", json={})).json()
            assert answer["why"] == "The workspace cannot be read or written: the store is away"
            assert service.watch.refused is None
            fail.clear()
            go_to(made.folder, go_to_later)
            await eventually(lambda: service.versions.current.name == names[0])

    asyncio.run(work())
