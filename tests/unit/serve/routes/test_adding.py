"""Photos that are added: found by the next search, idempotent, refused one by one, on disk before they are answered."""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import signal
import urllib.parse
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from retrieval.images.settings import PrepareConfig
from retrieval.live.store import Store
from serve.service import Service
from tests.support.inside import inside
from tests.support.workspace import Workspace, make_workspace

Work = Callable[[Service, httpx.AsyncClient], Awaitable[None]]


@pytest.fixture
def made(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path, num_identities=2)


def asked(made: Workspace, work: Work, **settings: Any) -> None:
    async def run() -> None:
        async with inside(made, **settings) as (service, client):
            await work(service, client)

    asyncio.run(run())


def photos_of(made: Workspace) -> list[bytes]:
    return [path.read_bytes() for path in made.photos.values()]


def test_a_photo_is_found_by_the_next_search_and_by_every_replica(made: Workspace) -> None:
    first = photos_of(made)[0]

    async def work(service: Service, client: httpx.AsyncClient) -> None:
        about = {"image_id": "new/1.jpg", "label": "ada", "keep_original": "true"}
        answer = await client.post("/v1/images", params=about, content=first)
        told = answer.json()
        assert (answer.status_code, told["added"], told["live"]) == (200, 1, 1)
        assert told["items"] == [
            {"image_id": "new/1.jpg", "status": 201, "faces": 1, "images": ["new/1.jpg"], "error": None}
        ]
        found = (await client.post("/v1/search?k=50", content=first)).json()
        by_id = {one["image_id"]: one for one in found["results"]}
        new = by_id["new/1.jpg"]
        assert new["score"] > 0.999 and new["label"] == "ada" and new["added"] and new["photo"] == "new/1.jpg"
        assert found["live"] == 1 and found["searched"] == len(made.photos) + 1
        image = (await client.get("/v1/images/new%2F1.jpg")).json()
        assert (image["where"], image["label"], image["original"]) == ("live", "ada", True)
        assert (await client.get("/v1/images/new/1.jpg/original")).content == first
        jpeg = (await client.get(new["thumbnail"])).content
        assert jpeg == service.versions.current.gallery.jpeg("new/1.jpg")
        async with inside(made) as (_, other):
            again = (await other.post("/v1/search?k=1", json={"image_id": "new/1.jpg"})).json()
            assert again["results"][0]["score"] > 0.999 and again["live"] == 1

    asked(made, work)


def test_the_same_photo_again_is_there_already_and_another_is_a_conflict(made: Workspace) -> None:
    first, *_, other = photos_of(made)
    sealed, path = next(iter(made.photos.items()))

    async def work(_: Service, client: httpx.AsyncClient) -> None:
        for image_id, photo in (("new.jpg", first), (sealed, path.read_bytes())):
            address = f"/v1/images?image_id={urllib.parse.quote(image_id, safe='')}"
            expected = 201 if image_id == "new.jpg" else 200
            assert (await client.post(address, content=photo)).json()["items"][0]["status"] == expected
            again = (await client.post(address, content=photo)).json()
            assert again["items"][0] == {**again["items"][0], "status": 200, "images": [image_id], "error": None}
            assert again["added"] == 0
            refused = await client.post(address, content=other)
            assert (refused.status_code, refused.json()["error"]["reason"]) == (409, "conflict")
            shown = f"/v1/images/{urllib.parse.quote(image_id, safe='')}/thumbnail"
            seen = {"If-None-Match": (await client.get(shown)).headers["etag"]}
            assert (await client.get(shown, headers=seen)).status_code == 304
            replaced = (await client.post(f"{address}&replace=true", content=other)).json()
            assert (await client.get(shown, headers=seen)).status_code == 200  # what a browser kept is another photo
            assert replaced["items"][0]["status"] == 201
            info = (await client.get(f"/v1/images/{urllib.parse.quote(image_id, safe='')}")).json()
            assert info["where"] == "live"
        listed = (await client.get("/v1/images?limit=1000")).json()["images"]
        assert len(listed) == len(made.photos) + 1  # what was replaced is there once

    asked(made, work)


def test_photos_of_a_form_are_refused_one_by_one(made: Workspace) -> None:
    photos = photos_of(made)

    async def work(_: Service, client: httpx.AsyncClient) -> None:
        files = [("photo", ("a/1.jpg", photos[0])), ("photo", ("broken.jpg", photos[1][:500]))]
        files += [("photo", ("3.jpg", photos[2])), ("photo", ("no.jpg", b"no photo"))]
        items = [{}, {}, {"image_id": "named.jpg", "label": "bob", "attributes": {"Wearing_Hat": 1}}, {}]
        form: list = [*files, ("options", (None, json.dumps({"items": items})))]
        told = (await client.post("/v1/images", files=form)).json()
        statuses = {one["image_id"]: one["status"] for one in told["items"]}
        assert statuses == {"a/1.jpg": 201, "broken.jpg": 400, "named.jpg": 201, "no.jpg": 415}
        assert told["added"] == 2 and told["items"][1]["error"]["reason"] == "unreadable"
        info = (await client.get("/v1/images/named.jpg")).json()
        assert (info["label"], info["attributes"]) == ("bob", {"Wearing_Hat": 1})
        filtered = {"image_id": "named.jpg", "filter": {"attributes": {"Wearing_Hat": 1}}}
        found = (await client.post("/v1/search", json=filtered)).json()
        assert [one["image_id"] for one in found["results"]] == ["named.jpg"] and found["searched"] == 1

    asked(made, work)


@pytest.mark.parametrize(
    "name", ["", "../up.jpg", "/abs.jpg", "a//b.jpg", "a/./b", "a#1", "a\\b", "a\nb", "x" * 1025, "a/"]
)
def test_names_that_are_none_are_refused(made: Workspace, name: str) -> None:
    async def work(service: Service, client: httpx.AsyncClient) -> None:
        refused = await client.post("/v1/images", params={"image_id": name}, content=photos_of(made)[0])
        assert (refused.status_code, refused.json()["error"]["reason"]) == (422, "bad-parameter")
        assert service.versions.current.gallery.refresh() == 0

    asked(made, work)


def test_requests_that_make_no_sense_are_refused_before_any_work(made: Workspace) -> None:
    photo = photos_of(made)[0]

    async def work(service: Service, client: httpx.AsyncClient) -> None:
        two: list = [("photo", ("a.jpg", photo)), ("photo", ("a.jpg", photo))]
        one_item: list = [*two, ("options", (None, json.dumps({"items": [{}]})))]
        odd: list = [two[0], ("options", (None, json.dumps({"items": [{"attributes": {"hat": 1}}]})))]
        for files, status in ((two, 422), (one_item, 422), (odd, 422), ([("other", ("a", b"x"))], 400)):
            assert (await client.post("/v1/images", files=files)).status_code == status
        assert (await client.post("/v1/images", content=photo)).status_code == 422  # without a name
        assert (await client.post("/v1/images?image_id=a.jpg", json={})).status_code == 415
        no_face = await client.post("/v1/images?image_id=a.jpg", content=b"no photo")
        assert (no_face.status_code, no_face.json()["error"]["reason"]) == (415, "not-an-image")
        assert service.versions.current.gallery.refresh() == 0

    asked(made, work)


def test_a_gallery_of_whole_photos_has_no_faces_to_add(tmp_path: Path) -> None:
    made = make_workspace(tmp_path, num_identities=2, prepare=PrepareConfig(size=96, crop="fit", detector="haar"))

    async def work(_: Service, client: httpx.AsyncClient) -> None:
        photo = photos_of(made)[0]
        refused = await client.post("/v1/images?image_id=a.jpg&faces=all", content=photo)
        assert (refused.status_code, refused.json()["error"]["reason"]) == (422, "bad-parameter")
        told = (await client.post("/v1/images?image_id=a.jpg", content=photo)).json()
        assert told["items"][0]["faces"] == 0 and told["added"] == 1

    asked(made, work)


def test_what_was_acknowledged_is_on_disk_as_it_was_sent(made: Workspace) -> None:
    photo = photos_of(made)[0]

    async def work(service: Service, client: httpx.AsyncClient) -> None:
        await client.post("/v1/images?image_id=a.jpg&keep_original=true", content=photo)
        version = service.versions.current
        store = Store.open(made.folder)
        (row,) = store.changed(0, version.pair.model_fingerprint).rows
        assert row.entry.content_hash == hashlib.sha256(photo).hexdigest()
        assert store.original("a.jpg") == photo and row.prepared == version.prepared
        assert row.vector is not None and row.box is not None and len(row.box) == 4
        store.close()

    asked(made, work)


def test_a_full_disk_refuses_what_is_added_and_nothing_else(made: Workspace) -> None:
    first, second, *_ = photos_of(made)

    async def work(service: Service, client: httpx.AsyncClient) -> None:
        assert (await client.post("/v1/images?image_id=one", content=first)).status_code == 200
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (Path(made.folder.path, "live/gallery.db").stat().st_size, hard))
        try:
            body = await client.post("/v1/images?image_id=two", content=second)
            assert (body.status_code, body.json()["error"]["reason"]) == (503, "unavailable"), body.text
            assert body.headers["retry-after"] == "1"
            form = await client.post("/v1/images", files=[("photo", ("two", second)), ("photo", ("one", first))])
            assert [item["status"] for item in form.json()["items"]] == [503, 200]
            found = (await client.post("/v1/search?k=50", content=second)).json()
            assert "two" not in {one["image_id"] for one in found["results"]} and found["live"] == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handled)
        assert (await client.post("/v1/images?image_id=two", content=second)).json()["items"][0]["status"] == 201

    asked(made, work)


def test_a_gallery_that_cannot_be_changed_says_so(made: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "open_if_possible", classmethod(lambda cls, workspace: None))

    async def work(_: Service, client: httpx.AsyncClient) -> None:
        assert (await client.get("/v1/info")).json()["features"]["add"] is False
        for answer in (
            await client.post("/v1/images?image_id=a.jpg", content=photos_of(made)[0]),
            await client.delete(f"/v1/images/{urllib.parse.quote(next(iter(made.photos)), safe='')}"),
        ):
            assert (answer.status_code, answer.json()["error"]["reason"]) == (409, "read-only")
        assert (await client.post("/v1/search", content=photos_of(made)[0])).json()["live"] == 0

    asked(made, work)
