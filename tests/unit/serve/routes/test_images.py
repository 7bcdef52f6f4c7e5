"""Stored crops by image_id."""

from __future__ import annotations

import asyncio
import urllib.parse
from pathlib import Path

from tests.support.inside import inside
from tests.support.workspace import make_workspace


def test_a_thumbnail_is_the_stored_crop_and_is_not_sent_twice(tmp_path: Path) -> None:
    made = make_workspace(tmp_path, num_identities=2)

    async def work() -> None:
        async with inside(made) as (service, client):
            gallery = service.versions.current.gallery
            first, other = list(made.photos)[:2]
            address = f"/v1/images/{urllib.parse.quote(first, safe='')}/thumbnail"
            response = await client.get(address)
            assert response.content == gallery.jpeg(first) and response.headers["content-type"] == "image/jpeg"
            seen = {"If-None-Match": response.headers["etag"]}
            again = await client.get(address, headers=seen)
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["cache-control"] == "private, no-cache"
            assert (await client.get(f"/v1/images/{other}/thumbnail", headers=seen)).content == gallery.jpeg(other)
            for wrong in ("nobody", "..%2F..%2Fetc%2Fpasswd", "%00"):
                gone = await client.get(f"/v1/images/{wrong}/thumbnail")
                assert (gone.status_code, gone.json()["error"]["reason"]) == (404, "not-found")

    asyncio.run(work())
