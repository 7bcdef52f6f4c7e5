"""Results in order of evidence, over the whole service."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from retrieval.geometry import features
from retrieval.images.settings import PrepareConfig
from retrieval.search.rerank import MIN_INLIERS
from serve.engine.verifying import verified
from serve.engine.wording import Found
from serve.schemas import SearchAnswer, SearchOptions
from serve.service import Service
from tests.support.asked import Client, refusal, run
from tests.support.workspace import Workspace, make_workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    whole = PrepareConfig(size=218, crop="fit")
    return make_workspace(tmp_path_factory.mktemp("places"), num_identities=3, prepare=whole)


async def _search(client: Client, photo: bytes | None = None, **options: Any) -> SearchAnswer:
    if photo is None:
        response = await client.post("/v1/search", json=options)
    else:
        response = await client.post("/v1/search", content=photo, params=options)
    assert response.status_code == 200, response.text
    return SearchAnswer.model_validate(response.json())


def test_what_fits_comes_first_and_shows_why(made: Workspace) -> None:
    image_id, path = list(made.photos.items())[2]
    photo = path.read_bytes()

    async def work(service: Service, client: Client) -> None:
        assert (await client.get("/v1/info")).json()["features"]["rerank"] is True
        plain = await _search(client, photo, k=12)
        assert {result.inliers for result in plain.results} == {None}
        told = await _search(client, photo, k=4, rerank=6, evidence=True)
        assert len(told.results) == 4
        first = told.results[0]
        assert first.image_id == image_id and first.inliers is not None and first.inliers >= MIN_INLIERS
        assert first.matches is not None and len(first.matches) == first.inliers
        offsets = np.array([(qx - rx, qy - ry) for qx, qy, rx, ry in first.matches])  # the gallery's is cut to its box
        assert (np.abs(offsets - np.median(offsets, axis=0)).max(axis=1) < 1).mean() > 0.8
        counted = [result.inliers or 0 for result in told.results]
        good = [count for count in counted if count >= MIN_INLIERS]
        assert counted[: len(good)] == sorted(good, reverse=True)
        assert {result.image_id for result in told.results} <= {result.image_id for result in plain.results[:6]}
        assert told.seconds.rerank > 0
        silent = await _search(client, photo, k=4, rerank=6)
        assert [result.image_id for result in silent.results] == [result.image_id for result in told.results]
        assert [result.matches for result in silent.results] == [None] * 4
        by_id = await _search(client, image_id=image_id, k=4, rerank=6)
        assert by_id.results[0].image_id == image_id and (by_id.results[0].inliers or 0) >= first.inliers

    run(made, work)


def test_what_fits_comes_first_wherever_it_was(made: Workspace) -> None:
    image_id = list(made.photos)[2]

    async def work(service: Service, _: Client) -> None:
        version = service.versions.current
        hits = version.gallery.search(version.gallery.vectors_of([image_id]), 6)[0]
        assert hits[0].image_id == image_id
        backwards = Found(list(reversed(hits)), hits[0].score, None)
        options = SearchOptions(image_id=image_id, rerank=6, k=3)
        told = await verified(service.args, version, options, backwards, None)
        assert told.hits[0].image_id == image_id
        assert len(told.hits) == 3
        assert set(told.evidence) == {hit.image_id for hit in hits}

    run(made, work)


def test_without_time_all_keep_their_places(made: Workspace) -> None:
    photo = next(iter(made.photos.values())).read_bytes()

    async def work(_: Service, client: Client) -> None:
        plain, told = await _search(client, photo, k=5), await _search(client, photo, k=5, rerank=5)
        assert [one.image_id for one in told.results] == [one.image_id for one in plain.results]
        assert {one.inliers for one in told.results} == {None}

    run(made, work, rerank_timeout_s=0)


def test_who_leaves_leaves_no_work_behind(made: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, extract = [], features.extract
    going, on = threading.Event(), threading.Event()

    def slow(jpeg: bytes, **how: Any) -> features.Features:
        begun.append(jpeg)
        going.set()
        assert on.wait(60)
        return extract(jpeg, **how)

    monkeypatch.setattr(features, "extract", slow)

    async def work(service: Service, _: Client) -> None:
        version, image_id = service.versions.current, next(iter(made.photos))
        hits = version.gallery.search(version.gallery.vectors_of([image_id]), 6)[0]
        options = SearchOptions(image_id=image_id, rerank=6)
        asked = asyncio.create_task(verified(service.args, version, options, Found(hits, 1.0, None), None))
        assert await asyncio.to_thread(going.wait, 60)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        on.set()
        await version.in_thread(lambda: None)  # the one thread is free again
        assert len(begun) == 2, "the query and the first result, which were begun before"

    run(made, work, rerank_timeout_s=60)


def test_what_cannot_be_verified_is_refused(made: Workspace, tmp_path_factory: pytest.TempPathFactory) -> None:
    photo = next(iter(made.photos.values())).read_bytes()

    async def work(_: Service, client: Client) -> None:
        assert refusal(await client.post("/v1/search?rerank=8", content=photo)) == (422, "bad-parameter")
        both = {"image_ids": [{"image_id": one} for one in list(made.photos)[:2]], "rerank": 3}
        assert refusal(await client.post("/v1/search", json=both)) == (422, "bad-parameter")

    run(made, work, max_rerank=7)

    faces = make_workspace(tmp_path_factory.mktemp("faces"), num_identities=2)

    async def with_faces(_: Service, client: Client) -> None:
        assert (await client.get("/v1/info")).json()["features"]["rerank"] is False
        response = await client.post("/v1/search?rerank=3", content=photo)
        assert refusal(response) == (422, "bad-parameter") and "faces" in response.json()["error"]["message"]

    run(faces, with_faces)
