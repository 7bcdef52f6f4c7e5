"""Images of the gallery: listed, shown, and gone once they are deleted."""

from __future__ import annotations

import asyncio
import urllib.parse
from pathlib import Path

import pytest

from retrieval.images import pixels
from tests.support.inside import inside
from tests.support.workspace import Workspace, make_workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("images"), num_identities=2)


def address(image_id: str) -> str:
    return f"/v1/images/{urllib.parse.quote(image_id, safe='')}"


def test_a_thumbnail_is_the_stored_crop_and_is_not_sent_twice(made: Workspace) -> None:
    async def work() -> None:
        async with inside(made) as (service, client):
            gallery = service.versions.current.gallery
            first, other = list(made.photos)[:2]
            response = await client.get(f"{address(first)}/thumbnail")
            assert response.content == gallery.jpeg(first) and response.headers["content-type"] == "image/jpeg"
            seen = {"If-None-Match": response.headers["etag"]}
            again = await client.get(f"{address(first)}/thumbnail", headers=seen)
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["cache-control"] == "private, no-cache"
            assert (await client.get(f"/v1/images/{other}/thumbnail", headers=seen)).content == gallery.jpeg(other)
            for wrong in ("nobody", "..%2F..%2Fetc%2Fpasswd", "%00"):
                for what in ("/thumbnail", "/original", ""):
                    gone = await client.get(f"/v1/images/{wrong}{what}")
                    assert (gone.status_code, gone.json()["error"]["reason"]) == (404, "not-found")
            small = await client.get(f"{address(first)}/thumbnail?size=40")
            assert max(pixels.stored_size(small.content)) == 40
            large = await client.get(f"{address(first)}/thumbnail?size=1024")
            assert large.content == response.content  # never enlarged
            assert len({one.headers["etag"] for one in (response, small, large)}) == 3
            assert (await client.get(f"{address(first)}/thumbnail?size=4")).status_code == 422
            assert (await client.get(f"{address(first)}/original")).status_code == 404

    asyncio.run(work())


def test_the_gallery_in_pages(made: Workspace) -> None:
    async def work() -> None:
        async with inside(made) as (_, client):
            found, after = [], ""
            while after is not None:
                page = (
                    await client.get("/v1/images", params={"limit": 3, **({"after": after} if after else {})})
                ).json()
                found, after = found + page["images"], page["next"]
            assert [one["image_id"] for one in found] == sorted(made.photos)
            assert {one["image_id"]: one["label"] for one in found} == made.labels
            assert {(one["where"], one["width"], one["added"]) for one in found} == {("sealed", 96, None)}
            one = (await client.get(address(found[2]["image_id"]))).json()
            assert one == found[2] and (await client.get(one["thumbnail"])).status_code == 200
            label = found[0]["label"]
            wanted = {"filter": f'{{"label": ["{label}"]}}'}
            of = (await client.get("/v1/images", params=wanted)).json()["images"]
            assert [one["image_id"] for one in of] == sorted(name for name in made.labels if made.labels[name] == label)
            assert (await client.get("/v1/images", params={"filter": "{"})).status_code == 422

    asyncio.run(work())


def test_what_is_deleted_is_in_no_answer_and_has_a_receipt(tmp_path: Path) -> None:
    made = make_workspace(tmp_path, num_identities=3)

    async def work() -> None:
        async with inside(made) as (service, client):
            name, photo = next((name, path) for name, path in made.photos.items())
            row = service.versions.current.gallery.row_of(name)
            thumbnail = (await client.get(f"/gallery/{row}")).content
            receipt = (await client.delete(address(name))).json()
            assert (receipt["deleted"], receipt["live"]) == ([name], 1)
            assert {one["what"] for one in receipt["pending"]} == {"collection/test", "embeddings/test", "index/test"}
            assert all("ray_jobs.compact" in one["until"] for one in receipt["pending"]) and receipt["not_ours"]
            for gone in (address(name), f"{address(name)}/thumbnail", f"/gallery/{row}"):
                answer = await client.get(gone)
                assert answer.status_code == 404 and answer.content != thumbnail
            found = (await client.post("/v1/search?k=100", content=photo.read_bytes())).json()
            assert name not in [one["image_id"] for one in found["results"]]
            assert found["searched"] == len(made.photos) - 1 and found["live"] == 1
            old = (await client.post("/search?k=100", content=photo.read_bytes())).json()
            assert len(old["results"]) == len(made.photos) - 1
            again = await client.delete(address(name))
            assert (again.status_code, again.json()["error"]["reason"]) == (404, "not-found")
            label = next(label for label in made.labels.values() if label != made.labels[name])
            told = (await client.delete("/v1/images", params={"label": label})).json()
            assert told["deleted"] == sorted(one for one in made.labels if made.labels[one] == label)
            assert (await client.delete("/v1/images", params={"label": label})).status_code == 404
            assert (await client.delete("/v1/images")).status_code == 422

    asyncio.run(work())
