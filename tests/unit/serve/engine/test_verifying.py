"""Results in order of evidence, over the whole service."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import threading
from typing import Any

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.artifacts.manifest import seal
from retrieval.artifacts.published import Pair, publish
from retrieval.geometry import extraction, features
from retrieval.geometry.settings import FeatureConfig
from retrieval.images.settings import PrepareConfig
from retrieval.search.rerank import MIN_INLIERS, count_inliers
from serve.engine.verifying import USUAL, verified
from serve.engine.wording import Found
from serve.schemas import SearchAnswer, SearchOptions
from serve.service import Service
from tests.support.asked import Client, refusal, run
from tests.support.local import random_aliked
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


@pytest.fixture(scope="module")
def described(made: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same, with learned local features of all but the last split published beside it: of a random network."""
    root = tmp_path_factory.mktemp("described") / "w"
    shutil.copytree(made.folder.path, root)
    workspace = Folder.of(root)
    pair = Pair.open(workspace.uri)
    kept = workspace / "features/made"
    settings = FeatureConfig(extractor="aliked", weights="w", max_features=200, max_side=160)
    parts, num = extraction.parts_of(pair.collection, SPLITS)
    kept.write_bytes(extraction.NETWORK, random_aliked())
    for part in parts:
        extraction.extract_part(pair.collection, kept, part, SPLITS, settings)
    inputs = {"collection": pair.collection_fingerprint}
    seal(kept, kind="features", config={"features": plain(settings)}, inputs=inputs, counts={"photos": num})
    publish(workspace, collection=pair.collection, model=pair.model, index=pair.index, features=kept)
    return dataclasses.replace(made, folder=workspace)


SPLITS = ("train", "val", "query", "gallery")


def test_where_features_were_kept_a_query_is_verified_unless_it_says_otherwise(described: Workspace) -> None:
    image_id, path = list(described.photos.items())[2]
    photo = path.read_bytes()

    async def work(service: Service, client: Client) -> None:
        assert (await client.get("/v1/info")).json()["defaults"]["rerank"] == USUAL
        told, told_not = await _search(client, photo, k=5), await _search(client, photo, k=5, rerank=0)
        assert None not in {one.inliers for one in told.results} and {one.inliers for one in told_not.results} == {None}
        by_id = await _search(client, image_id=image_id, k=5)
        assert by_id.results[0].image_id == image_id and (by_id.results[0].inliers or 0) >= MIN_INLIERS
        vector = service.versions.current.gallery.vector(image_id).tolist()
        assert (await _search(client, embedding=vector, k=5)).results[0].inliers is None, "no photo to verify with"

    run(described, work)

    async def without(service: Service, client: Client) -> None:
        assert (await client.get("/v1/info")).json()["defaults"]["rerank"] == 2
        assert [one.inliers is None for one in (await _search(client, photo, k=3)).results][2]

    run(described, without, rerank=2)


def test_the_answer_is_the_one_that_evaluation_counts(described: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the features that were kept, of the query too if it is one of the gallery; no stored photo is read again."""
    image_id = list(described.photos)[1]
    pair = Pair.open(described.folder.uri)

    async def work(service: Service, client: Client) -> None:
        gallery = service.versions.current.gallery
        place = lambda image_id: gallery.sealed.place(gallery.row_of(image_id))  # noqa: E731
        told = await _search(client, image_id=image_id, k=USUAL)
        places = np.array([place(one.image_id) for one in told.results])
        counts = count_inliers(pair.collection, np.array([place(image_id)]), places[None], pair.features)
        assert [one.inliers for one in told.results] == counts[0].tolist()
        monkeypatch.setattr(type(gallery), "jpeg", lambda *_: pytest.fail("a stored photo was read"))
        assert (await _search(client, image_id=image_id, k=USUAL)).results == told.results

    run(described, work)


def test_a_photo_of_a_split_that_was_not_described_is_looked_at(
    described: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_id = list(described.photos)[1]

    async def work(service: Service, client: Client) -> None:
        before = await _search(client, image_id=image_id, k=USUAL)
        version = service.versions.current
        assert version.local is not None
        monkeypatch.setattr(version.local, "_footer", lambda part: (None, {}))
        version.local._held.clear()
        assert [one.inliers for one in (await _search(client, image_id=image_id, k=USUAL)).results] == [
            one.inliers for one in before.results
        ]

    run(described, work)


def test_nobody_waits_for_the_network_of_local_features_to_be_loaded(described: Workspace) -> None:
    extraction._network.cache_clear()

    async def work(service: Service, client: Client) -> None:
        assert extraction._network.cache_info().misses == 1
        await _search(client, list(described.photos.values())[2].read_bytes(), k=2)
        assert extraction._network.cache_info().misses == 1

    run(described, work)
