"""The part of the service that runs the model, called directly: a query is made ready as its gallery was."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.artifacts import hashing
from retrieval.artifacts.index import IDS
from retrieval.artifacts.published import Pair
from retrieval.images import pixels
from retrieval.images.pixels import BadImage
from retrieval.images.settings import Box, PrepareConfig
from retrieval.models import embedder as models_embedder
from retrieval.models.settings import ModelConfig
from serve.embedder import Embedder, checked_box, query_preparation
from serve.gallery import Gallery
from serve.messages import Embedded, Unusable
from serve.schemas import ServeArgs
from tests.support.frozen import DIM, tiny, write
from tests.support.workspace import SHALLOW, Workspace, make_workspace, stored_vectors


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A gallery of whole photos, stored larger than the network takes them."""
    prepare = PrepareConfig(crop="fit", size=160)
    config = dataclasses.replace(SHALLOW, keep_aspect=True, pooling="gem", image_size=96)
    return make_workspace(tmp_path_factory.mktemp("whole"), prepare=prepare, config=config)


def embedder_of(made: Workspace, **settings: Any) -> Embedder:
    settings = {"device": "cpu", "precision": "fp32", **settings}
    return Embedder(ServeArgs(workspace=str(made.folder), **settings), Pair.open(str(made.folder)))


def embed(part: Embedder, photo: bytes, box: Box | None = None) -> Embedded | Unusable:
    return asyncio.run(part.embed(photo, box))


def test_a_query_is_prepared_as_its_gallery_under_this_servers_limits() -> None:
    gallery = PrepareConfig(size=96, margin=0.3)
    query = query_preparation(hashing.plain(gallery), max_pixels=1000)
    assert (query.crop, query.size, query.margin, query.max_pixels) == ("face", 96, 0.3, 1000)
    assert query_preparation({"crop": "none"}, 1000).crop == "none"
    assert query_preparation({"crop": "box"}, 1000).crop == "face"
    assert query_preparation({"crop": "fit"}, 1000).crop == "fit"
    with pytest.raises(TypeError):
        query_preparation({"colour": "blue"}, 1000)


def test_a_photo_of_the_gallery_is_embedded_as_it_is_stored(faces: Workspace) -> None:
    part, pair = embedder_of(faces), Pair.open(str(faces.folder))
    gallery, vectors = Gallery(pair.collection, pair.index), stored_vectors(faces.folder)
    ids = pair.index.read_table(IDS)["image_id"].to_pylist()
    for row in (0, 7):
        got = embed(part, faces.photos[ids[row]].read_bytes())
        assert isinstance(got, Embedded)
        assert got.crop == gallery.jpeg(row)
        assert got.embedding.dtype == np.float32
        assert np.allclose(got.embedding, vectors[row], atol=1e-5)
        assert got.model == pair.model_fingerprint
        assert (got.width, got.height) == (178, 218)
        assert got.box[0] < got.box[2]
        assert got.prepare_seconds > 0 and got.embed_seconds > 0


def test_a_frozen_network_answers_as_it_embedded(tmp_path: Path) -> None:
    """Its file comes with the bundle: where it lay before is gone."""
    write(tmp_path / "net", tiny())
    config = ModelConfig(backbone=f"onnx:{tmp_path / 'net'}", flip=True)
    made = make_workspace(tmp_path, prepare=PrepareConfig(size=32, crop="none"), config=config)
    shutil.rmtree(tmp_path / "net")
    part, vectors = embedder_of(made, precision="auto"), stored_vectors(made.folder)
    ids = Pair.open(str(made.folder)).index.read_table(IDS)["image_id"].to_pylist()
    for row in (0, 7):
        got = embed(part, made.photos[ids[row]].read_bytes())
        assert isinstance(got, Embedded) and np.allclose(got.embedding, vectors[row], atol=1e-5)
    assert part.describe().embedding_dim == DIM


def test_a_photo_that_cannot_be_used_is_a_value_with_its_reason(faces: Workspace) -> None:
    part = embedder_of(faces, max_pixels=90_000)
    blank = {side: pixels.encode_jpeg(np.zeros((side, side, 3), np.uint8)) for side in (8, 300, 301)}
    for photo, reason in (
        (b"", "empty"),
        (b"no photo", "not-an-image"),
        (blank[8], "too-small"),
        (blank[300], "no-face"),
        (blank[301], "too-large"),
    ):
        got = embed(part, photo)
        assert isinstance(got, Unusable)
        assert got.reason == reason


def test_faces_are_found_and_not_shown(faces: Workspace) -> None:
    got = embed(embedder_of(faces), next(iter(faces.photos.values())).read_bytes(), (0, 0, 100, 100))
    assert isinstance(got, Unusable)
    assert got.reason == "bad-parameter" and got.detail.startswith("box: ") and "'face'" in got.detail


def test_a_part_of_a_whole_photo_is_embedded_as_that_part(whole: Workspace) -> None:
    """Shrunk as much as the whole photo would be for the network: 96 of 218 pixels."""
    part, photo = embedder_of(whole), next(iter(whole.photos.values())).read_bytes()
    plain, cut = embed(part, photo), embed(part, photo, (10.4, 20.0, 150.0, 200.0))
    assert isinstance(plain, Embedded) and isinstance(cut, Embedded)
    assert plain.box == (0, 0, 178, 218)
    assert max(pixels.stored_size(plain.crop)) == 160
    assert cut.box == (10, 20, 150, 200)
    assert pixels.stored_size(cut.crop) == (62, 79)
    assert (cut.width, cut.height) == (178, 218)
    assert not np.allclose(cut.embedding, plain.embedding, atol=1e-3)
    outside = embed(part, photo, (0, 0, 179, 100))
    assert isinstance(outside, Unusable) and outside.reason == "bad-box"


@pytest.mark.parametrize(
    ("box", "want"),
    [
        ((0, 0, 100, 50), (0, 0, 100, 50)),
        ((0.4, 0.6, 99.6, 49.5), (0, 1, 100, 50)),
        ((-0.4, 0, 100.4, 50), (0, 0, 100, 50)),
        ((10, 10, 26, 26), (10, 10, 26, 26)),
    ],
)
def test_a_box_in_the_photo_is_rounded_to_pixels(box: Box, want: Box) -> None:
    assert checked_box(box, 100, 50, 16) == want


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ((-1, 0, 50, 50), "the upright photo 100 x 50 pixels"),
        ((0, -1, 50, 50), "with 0 <= x1"),
        ((0, 0, 101, 50), "x2 <= 100"),
        ((0, 0, 50, 51), "y2 <= 50"),
        ((50, 0, 50, 50), "the box is 50,0,50,50"),
        ((0, 40, 50, 30), "the box is"),
        ((10, 10, 25, 40), "15 x 30 pixels; expected 16 or more"),
        ((10, 10, 40, 25), "30 x 15 pixels; expected 16 or more"),
    ],
)
def test_a_box_outside_or_too_small_is_refused(box: Box, says: str) -> None:
    with pytest.raises(BadImage, match="bad-box") as refused:
        checked_box(box, 100, 50, 16)
    assert says in refused.value.detail


def test_what_is_loaded_is_told(faces: Workspace) -> None:
    told, pair = embedder_of(faces).describe(), Pair.open(str(faces.folder))
    dim = stored_vectors(faces.folder).shape[1]
    assert told.model_dump() == {
        "fingerprint": pair.model_fingerprint,
        "embedding_dim": dim,
        "device": "cpu",
        "crop": "face",
    }


def test_a_model_that_was_replaced_while_the_service_started_is_refused(faces: Workspace) -> None:
    pair = dataclasses.replace(Pair.open(str(faces.folder)), model_fingerprint="e" * 64)
    with pytest.raises(ValueError, match="expected eeeeeeeeeeee: it was replaced"):
        Embedder(ServeArgs(workspace="w", device="cpu", precision="fp32"), pair)


def test_photos_that_come_together_are_embedded_together(faces: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    embed_jpegs = models_embedder.Embedder.embed_jpegs

    def watched(self: models_embedder.Embedder, jpegs: Sequence[bytes]) -> np.ndarray:
        sizes.append(len(jpegs))
        time.sleep(0.2)  # what comes meanwhile waits, and goes together
        return embed_jpegs(self, jpegs)

    monkeypatch.setattr(models_embedder.Embedder, "embed_jpegs", watched)
    part = embedder_of(faces, max_batch=3)
    assert sizes == [1]  # the first pass, which no client waits for
    sizes.clear()
    photos = [path.read_bytes() for path in list(faces.photos.values())[:7]]

    async def crowd() -> list[Embedded | Unusable]:
        return list(await asyncio.gather(*(part.embed(photo) for photo in photos)))

    got = asyncio.run(crowd())
    assert sum(sizes) == 7 and max(sizes) == 3
    for photo, one in zip(photos, got, strict=True):
        alone = embed(part, photo)
        assert isinstance(one, Embedded) and isinstance(alone, Embedded)
        assert np.allclose(one.embedding, alone.embedding, atol=1e-5)


def test_what_is_made_on_first_use_is_made_at_the_start(faces: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr("serve.embedder.make_detector", lambda *_: made.append("detector"))
    monkeypatch.setattr("serve.embedder.prepare", lambda *_: made.append("prepared"))
    embedder_of(faces, embedder_cpus=2)
    assert "detector" in made and made.count("prepared") == 2


def test_a_setting_of_the_model_that_is_not_taken_stops_the_start(tmp_path: Path) -> None:
    """A model that was made ready in a way this version does not know is not guessed at."""
    made = make_workspace(tmp_path, num_identities=2, config=ModelConfig(**dataclasses.asdict(SHALLOW)))
    spec = made.folder / "model/test"
    told = spec.read_json("model.json")
    spec.write_json("model.json", {**told, "preparation": {**told["preparation"], "colour": "blue"}})
    with pytest.raises(TypeError, match="colour"):
        embedder_of(made)
