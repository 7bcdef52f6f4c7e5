"""POST /v1/search over ASGI: the whole service in this process."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from serve.schemas import SearchAnswer
from serve.service import Service
from tests.support.hostile import scan_bomb, written
from tests.support.inside import inside
from tests.support.workspace import Workspace, make_workspace

JPEG = {"Content-Type": "image/jpeg"}
Client = httpx.AsyncClient


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("search"))


def run(made: Workspace, work: Callable[[Service, Client], Awaitable[None]], root_path: str = "", **more: Any) -> None:
    async def all_of_it() -> None:
        async with inside(made, root_path, **more) as (service, client):
            await work(service, client)

    asyncio.run(all_of_it())


def refusal(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["reason"]


def test_every_way_to_ask_gives_the_same_results(made: Workspace) -> None:
    image_id, path = list(made.photos.items())[3]
    photo = path.read_bytes()

    async def work(service: Service, client: Client) -> None:
        whole = await client.post("/v1/search?k=4&crop=true", content=photo, headers=JPEG)
        answer = SearchAnswer.model_validate(whole.json())
        assert answer.results[0].image_id == image_id and answer.results[0].score > 0.999
        assert [result.rank for result in answer.results] == [1, 2, 3, 4]
        assert answer.results[0].label == made.labels[image_id]
        assert answer.query is not None and answer.query.crop is not None
        crop = base64.b64decode(answer.query.crop.partition(",")[2])
        assert crop == service.versions.current.gallery.jpeg(image_id)
        version = service.versions.current
        assert (answer.model, answer.index) == (version.pair.model_fingerprint, version.pair.index_fingerprint)
        assert (answer.version, answer.live, answer.searched) == (version.name, 0, len(made.photos))
        seconds = answer.seconds
        assert min(seconds.upload, seconds.prepare, seconds.embed, seconds.search) > 0
        assert seconds.prepare + seconds.embed + seconds.search < seconds.total

        options = {"k": 4}
        form = {"photo": ("a.jpg", photo), "options": (None, json.dumps(options), "application/json")}
        for other in (
            await client.post("/v1/search", files=form),
            await client.post("/v1/search?k=2", files=form),
            await client.post("/v1/search", json={"image_id": image_id, **options}),
            await client.post("/v1/search", json={"image_ids": [{"image_id": image_id}], **options}),
        ):
            assert other.status_code == 200, other.text
            told = SearchAnswer.model_validate(other.json()).results
            assert [one.image_id for one in told] == [one.image_id for one in answer.results]
            assert [one.score for one in told] == pytest.approx([one.score for one in answer.results], abs=1e-4)
        default = await client.post("/v1/search", content=photo)
        assert len(default.json()["results"]) == 10
        assert default.json()["query"]["crop"] is None

    run(made, work)


def test_all_faces_and_one_of_them(made: Workspace) -> None:
    photo = next(iter(made.photos.values())).read_bytes()

    async def work(_: Service, client: Client) -> None:
        every = (await client.post("/v1/search?face=all&k=3", content=photo, headers=JPEG)).json()
        assert [face["query"]["face"] for face in every["faces"]] == list(range(len(every["faces"])))
        assert every["results"] in [face["results"] for face in every["faces"]]
        first = (await client.post("/v1/search?face=0&k=3", content=photo, headers=JPEG)).json()
        assert first["query"]["face"] == 0 and first["faces"] is None
        assert first["results"] == every["faces"][0]["results"]
        assert refusal(await client.post("/v1/search?face=77", content=photo, headers=JPEG)) == (422, "no-face")

    run(made, work)


@pytest.mark.parametrize(
    ("address", "reason", "says"),
    [
        ("?k=0", "bad-parameter", "k: "),
        ("?k=13", "bad-parameter", "k: "),
        ("?expand=9", "bad-parameter", "expand: "),
        ("?alpha=nan", "bad-parameter", "alpha: "),
        ("?face=some", "bad-parameter", "face"),
        ("?box=1,2,3", "bad-parameter", "box: "),
        ("?filter={", "bad-parameter", "filter: "),
        ('?filter={"colour":1}', "bad-parameter", "colour"),
        ("?min_score=2", "bad-parameter", "min_score: "),
        ("?far=0", "bad-parameter", "far: "),
        ("?colour=red", "bad-parameter", "colour: is no parameter"),
        ("?k=1&k=2", "bad-parameter", "k: comes twice"),
    ],
)
def test_limits_of_the_parameters(made: Workspace, address: str, reason: str, says: str) -> None:
    async def work(_: Service, client: Client) -> None:
        response = await client.post(f"/v1/search{address}", content=b"x", headers=JPEG)
        assert refusal(response) == (422, reason)
        assert says in response.json()["error"]["message"]

    run(made, work, max_k=12, max_expand=8)


def test_bodies_that_are_refused(made: Workspace) -> None:
    async def work(service: Service, client: Client) -> None:
        async def ask(content: bytes, kind: str) -> tuple[int, str]:
            return refusal(await client.post("/v1/search", content=content, headers={"Content-Type": kind}))

        assert await ask(b"x" * 5000, "image/jpeg") == (413, "body-too-large")
        assert await ask(b"x", "text/html") == (415, "not-a-photo")
        assert await ask(b"{", "application/json") == (400, "bad-request")
        assert await ask(b"[" * 100_000, "application/json") == (400, "bad-request")
        assert await ask(b"[]", "application/json") == (400, "bad-request")
        assert await ask(b"{}", "application/json") == (422, "bad-parameter")
        assert await ask(b'{"k": 1, "colour": 2}', "application/json") == (422, "bad-parameter")
        assert await ask(b'{"image_id": "nobody"}', "application/json") == (404, "not-found")
        assert await ask(b"", "multipart/form-data; boundary=x") == (400, "bad-request")
        large = await client.post("/v1/search", files={"photo": b"x" * 5000})
        assert refusal(large) == (413, "body-too-large")
        without = await client.post("/v1/search", files={"image": b"x"})
        assert refusal(without) == (400, "bad-request") and "'photo'" in without.json()["error"]["message"]
        bad = await client.post("/v1/search", files={"photo": b"x", "options": (None, '{"k": 0}')})
        assert refusal(bad) == (422, "bad-parameter")
        assert (service.uploads.num, service.uploads.held, service._num_queries) == (0, 0, 0)

    run(made, work, max_body_bytes=4000)


@pytest.mark.parametrize(
    ("photo", "status", "reason"),
    [
        (b"", 400, "empty"),
        (b"hello, I am no photo", 415, "not-an-image"),
        (written("GIF"), 415, "not-an-image"),
        (written("JPEG")[:-100], 400, "truncated"),
        (written("JPEG"), 422, "no-face"),
        (scan_bomb(200), 422, "too-many-scans"),
    ],
)
def test_a_photo_that_cannot_be_used_is_refused_with_its_reason(
    made: Workspace, photo: bytes, status: int, reason: str
) -> None:
    async def work(_: Service, client: Client) -> None:
        for address in ("/v1/search", "/search"):
            assert refusal(await client.post(address, content=photo, headers=JPEG)) == (status, reason)

    run(made, work)


def test_a_crowd_is_answered_or_turned_away_at_once(made: Workspace) -> None:
    photo = next(iter(made.photos.values())).read_bytes()

    async def work(service: Service, client: Client) -> None:
        asked = [client.post("/v1/search?k=3", content=photo, headers=JPEG) for _ in range(12)]
        responses = await asyncio.gather(*asked)
        answered = [response for response in responses if response.status_code == 200]
        turned = [response for response in responses if response.status_code != 200]
        assert 3 <= len(answered) < 12
        assert {refusal(response) for response in turned} == {(503, "busy")}
        assert {response.headers["retry-after"] for response in turned} == {"7"}
        assert len({json.dumps(one.json()["results"][0]["image_id"]) for one in answered}) == 1
        assert (await client.post("/v1/search", content=photo, headers=JPEG)).status_code == 200
        assert 'retrieval_refusals_total{reason="busy"' in service.metrics.text().decode()

    run(made, work, max_queue=3, retry_after_s=7)


def test_a_query_that_takes_too_long_is_given_up(made: Workspace) -> None:
    photo = next(iter(made.photos.values())).read_bytes()

    async def work(service: Service, client: Client) -> None:
        held = [service.photos._idle.popleft() for _ in range(service.photos.num_alive)]
        response = await client.post("/v1/search", content=photo, headers=JPEG)
        assert refusal(response) == (504, "timeout") and "0.3 s" in response.json()["error"]["message"]
        assert service._num_queries == 0
        for handle in held:
            service.photos._release(handle)

    run(made, work, timeout_s=0.3)


@pytest.mark.parametrize(("root", "prefix"), [("/faces", "/faces"), ("/", ""), ("", "")])
def test_thumbnails_are_below_the_service_s_own_path(made: Workspace, root: str, prefix: str) -> None:
    photo = next(iter(made.photos.values())).read_bytes()

    async def work(_: Service, client: Client) -> None:
        response = await client.post(f"{prefix}/v1/search?k=1", content=photo, headers=JPEG)
        assert response.json()["results"][0]["thumbnail"].startswith(f"{prefix}/v1/images/")
        old = await client.post(f"{prefix}/search?k=1", content=photo, headers=JPEG)
        assert old.json()["results"][0]["thumbnail"] == f"{prefix}/gallery/0"

    run(made, work, root_path=root)


def test_a_failure_of_ours_is_told_without_its_words(made: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = next(iter(made.photos.values())).read_bytes()

    async def work(service: Service, client: Client) -> None:
        def fail(*_: object) -> None:
            raise ValueError("secret")

        monkeypatch.setattr(service.versions.current.gallery, "search", fail)
        response = await client.post("/v1/search", content=photo, headers=JPEG)
        assert refusal(response) == (500, "internal") and "secret" not in response.text
        assert service._num_queries == 0

    run(made, work)
