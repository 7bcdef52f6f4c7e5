"""A query photo is described as the gallery's photos were."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from retrieval.artifacts import hashing
from retrieval.artifacts.embeddings import read_parts
from retrieval.images.pixels import BadImage, encode_jpeg
from retrieval.images.settings import PrepareConfig
from retrieval.models.bundle import build
from retrieval.models.embedder import Embedder
from retrieval.models.queries.reader import PhotoReader, query_preparation
from tests.support.workspace import SHALLOW, Workspace, make_workspace


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("faces"), num_identities=3, images_per_identity=2)


def test_a_photo_of_the_gallery_is_described_as_it_was_there(faces: Workspace) -> None:
    embedder = Embedder(str(faces.folder / "model/test"), precision="fp32", num_threads=1)
    reader = PhotoReader(embedder)
    stored = dict(pair for ids, found in read_parts(faces.folder / "embeddings/test") for pair in zip(ids, found))
    for image_id, photo in faces.photos.items():
        found = reader.describe(photo.read_bytes())
        assert found.embedding == pytest.approx(stored[image_id], abs=1e-5)
        assert found.prepared.width == 96 and len(found.prepared.box) == 4


def test_a_photo_that_cannot_be_used_says_why(faces: Workspace) -> None:
    reader = PhotoReader(Embedder(str(faces.folder / "model/test"), precision="fp32"))
    with pytest.raises(BadImage, match="no-face"):
        reader.describe(encode_jpeg(np.zeros((80, 80, 3), np.uint8)))
    with pytest.raises(BadImage, match="not-an-image"):
        reader.describe(b"no photo")


def test_a_bundle_that_does_not_say_how_photos_are_prepared_is_refused() -> None:
    with pytest.raises(ValueError, match="does not say how photos are prepared"):
        PhotoReader(Embedder(build(SHALLOW)))


def test_a_query_brings_no_box_and_may_have_another_limit_of_pixels() -> None:
    gallery = hashing.plain(PrepareConfig(crop="box", size=96, max_pixels=5000))
    assert (query_preparation(gallery).crop, query_preparation(gallery).max_pixels) == ("face", 5000)
    assert query_preparation(gallery, 1000).max_pixels == 1000
    whole = PrepareConfig(crop="fit", size=96)
    assert query_preparation(hashing.plain(whole)) == dataclasses.replace(whole)
