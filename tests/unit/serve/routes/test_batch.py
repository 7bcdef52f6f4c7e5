"""POST /v1/search/batch: each photo as if it had come alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serve.schemas import BatchAnswer, SearchAnswer
from serve.service import Service
from tests.support.asked import Client, refusal, run
from tests.support.hostile import written
from tests.support.workspace import Workspace, make_workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("batch"))


def _form(*photos: tuple[str, bytes], **options: Any) -> list[tuple[str, Any]]:
    told = [("options", (None, json.dumps(options), "application/json"))] if options else []
    return [*(("photo", photo) for photo in photos), *told]


def _same(one: SearchAnswer, other: SearchAnswer) -> None:
    assert [result.image_id for result in one.results] == [result.image_id for result in other.results]
    assert [result.score for result in one.results] == pytest.approx([r.score for r in other.results], abs=1e-4)
    assert (one.query, one.decision, one.searched) == (other.query, other.decision, other.searched)


def test_each_photo_has_the_answer_that_it_has_alone(made: Workspace) -> None:
    photos = [(image_id, path.read_bytes()) for image_id, path in list(made.photos.items())[:5]]
    given = [*photos[:2], ("bad.jpg", b"x"), ("nobody.jpg", written("JPEG")), *photos[2:], ("large", b"x" * 90_001)]

    async def work(service: Service, client: Client) -> None:
        sizes: list[int] = []
        version = service.versions.current
        version._batched = sizes.append
        response = await client.post("/v1/search/batch", files=_form(*given, k=3))
        assert response.status_code == 200, response.text
        told = BatchAnswer.model_validate(response.json())
        assert (told.version, told.index) == (version.name, version.pair.index_fingerprint)
        assert [item.name for item in told.items] == [name for name, _ in given]
        refused = {item.name: (item.status, item.error.reason) for item in told.items if item.error is not None}
        assert refused == {
            "bad.jpg": (415, "not-an-image"),
            "nobody.jpg": (422, "no-face"),
            "large": (413, "body-too-large"),
        }
        assert sum(sizes) == len(photos)
        for (name, photo), item in zip(given, told.items, strict=True):
            if item.answer is not None:
                alone = await client.post("/v1/search?k=3", content=photo)
                _same(item.answer, SearchAnswer.model_validate(alone.json()))
                assert item.answer.results[0].image_id == name
        assert told.seconds.embed > 0 and told.seconds.upload > 0

    run(made, work, max_body_bytes=90_000)


def test_what_is_no_batch_is_refused_whole(made: Workspace) -> None:
    photo = ("a.jpg", next(iter(made.photos.values())).read_bytes())

    async def work(_: Service, client: Client) -> None:
        async def ask(*photos: tuple[str, bytes], **options: Any) -> tuple[int, str]:
            return refusal(await client.post("/v1/search/batch", files=_form(*photos, **options)))

        assert await ask(photo, photo, photo, photo) == (400, "bad-request")
        assert await ask(k=3) == (400, "bad-request")
        assert await ask(photo, k=0) == (422, "bad-parameter")
        assert await ask(photo, image_id="a") == (422, "bad-parameter")
        assert await ask(photo, colour=3) == (422, "bad-parameter")
        assert refusal(await client.post("/v1/search/batch", content=photo[1])) == (415, "not-a-photo")
        too_large = await client.post("/v1/search/batch", files=_form(("a", b"x" * 300_000)))
        assert refusal(too_large) == (413, "body-too-large")

    run(made, work, max_batch_photos=3, max_batch_bytes=200_000)


def test_a_photo_without_a_name_goes_by_its_place(made: Workspace) -> None:
    photo = next(iter(made.photos.values())).read_bytes()
    lines = [b'--x\r\nContent-Disposition: form-data; name="photo"\r\n\r\n' + photo + b"\r\n" for _ in range(2)]

    async def work(_: Service, client: Client) -> None:
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        response = await client.post("/v1/search/batch", content=b"".join(lines) + b"--x--\r\n", headers=kind)
        assert [item["name"] for item in response.json()["items"]] == ["0", "1"]
        assert [item["status"] for item in response.json()["items"]] == [200, 200]

    run(made, work)
