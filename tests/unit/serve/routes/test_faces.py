"""POST /v1/faces: what is found, and what a search would take."""

from __future__ import annotations

import dataclasses

import pytest

from retrieval.images.settings import PrepareConfig
from serve.schemas import FacesAnswer
from serve.service import Service
from tests.support.asked import Client, refusal, run
from tests.support.hostile import written
from tests.support.workspace import Workspace, make_workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("faces"), num_identities=2)


def test_faces_are_numbered_as_a_search_numbers_them(made: Workspace) -> None:
    photo = next(iter(made.photos.values())).read_bytes()

    async def work(service: Service, client: Client) -> None:
        for response in (
            await client.post("/v1/faces", content=photo, headers={"Content-Type": "image/jpeg"}),
            await client.post("/v1/faces", files={"photo": photo}),
        ):
            told = FacesAnswer.model_validate(response.json())
            assert [face.face for face in told.faces] == list(range(len(told.faces)))
            assert told.version == service.versions.current.name
            first = told.faces[0]
            assert first.usable and first.reason is None
            assert first.quality is not None and first.quality.size > 0
            searched = (await client.post("/v1/search?face=0&k=1", content=photo)).json()["query"]
            assert (list(first.box), told.width, told.height) == (
                searched["box"],
                searched["width"],
                searched["height"],
            )

    run(made, work)


def test_a_photo_of_nobody_has_no_faces(made: Workspace) -> None:
    async def work(_: Service, client: Client) -> None:
        response = await client.post("/v1/faces", content=written("JPEG"))
        told = FacesAnswer.model_validate(response.json())
        assert (told.faces, told.width, told.height) == ([], 64, 64)
        assert refusal(await client.post("/v1/search?face=all", content=written("JPEG"))) == (422, "no-face")
        assert refusal(await client.post("/v1/faces", content=b"x")) == (415, "not-an-image")
        assert refusal(await client.post("/v1/faces", json={"k": 3})) == (400, "bad-request")

    run(made, work)


def test_a_face_that_is_too_poor_says_why(made: Workspace) -> None:
    photo = next(iter(made.photos.values())).read_bytes()

    async def work(service: Service, client: Client) -> None:
        version = service.versions.current
        version.config = dataclasses.replace(version.config, min_face_size=4000)
        told = FacesAnswer.model_validate((await client.post("/v1/faces", content=photo)).json())
        assert [(face.usable, face.reason) for face in told.faces] == [(False, "face-too-small")] * len(told.faces)
        assert told.faces and told.faces[0].quality is not None

    run(made, work)


def test_a_gallery_of_whole_photos_has_no_faces(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = make_workspace(
        tmp_path_factory.mktemp("whole"), num_identities=2, prepare=PrepareConfig(size=96, crop="none")
    )

    async def work(_: Service, client: Client) -> None:
        assert refusal(await client.post("/v1/faces", content=written("JPEG"))) == (422, "bad-parameter")

    run(made, work)
