"""A model, an index and a gallery, loaded: a query is made ready and embedded as its gallery was."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.artifacts.index import IDS
from retrieval.artifacts.manifest import MANIFEST
from retrieval.artifacts.published import Pair, version_name
from retrieval.images import pixels
from retrieval.images.settings import PrepareConfig
from retrieval.models.settings import ModelConfig
from serve.engine.version import Version
from serve.photos.limits import Caps
from serve.photos.looking import Looker
from serve.photos.messages import Looked
from serve.routes.info import loaded_model
from tests.support.frozen import DIM, tiny, write
from tests.support.gallery import new_image
from tests.support.inside import settings
from tests.support.workspace import SHALLOW, Workspace, make_workspace, stored_vectors, with_index


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A gallery of whole photos, stored larger than the network takes them."""
    prepare = PrepareConfig(crop="fit", size=160)
    config = dataclasses.replace(SHALLOW, keep_aspect=True, pooling="gem", image_size=96)
    return make_workspace(tmp_path_factory.mktemp("whole"), prepare=prepare, config=config)


def version_of(made: Workspace, **more: Any) -> Version:
    return Version.load(settings(made, **more), Pair.open(str(made.folder)))


def seen(version: Version, photo: bytes, **how: Any) -> Looked:
    looked = Looker(Caps())(photo, version.look(**how))
    assert isinstance(looked, Looked), looked
    return looked


def test_a_photo_of_the_gallery_is_embedded_as_it_is_stored(faces: Workspace) -> None:
    version, vectors = version_of(faces), stored_vectors(faces.folder)
    ids = version.pair.index.read_table(IDS)["image_id"].to_pylist()

    async def ask() -> None:
        for row in (0, 7):
            (face,) = seen(version, faces.photos[ids[row]].read_bytes()).faces
            assert face.jpeg == version.gallery.jpeg_at(row)
            embedding = await version.embed(face.jpeg)
            assert embedding.dtype == np.float32
            assert np.allclose(embedding, vectors[row], atol=1e-5)
            (hits,) = await version.search(embedding[None], 3)
            assert hits[0].row == row and len(hits) == 3
        await asyncio.gather(version.check_model(), version.check_index(), version.check_gallery())

    asyncio.run(ask())
    version.close()


def test_a_query_is_prepared_as_its_gallery_under_this_server_s_limit(faces: Workspace) -> None:
    config = version_of(faces, max_pixels=1000).look().config
    assert (config.crop, config.size, config.max_pixels) == ("face", 96, 1000)


def test_its_name_is_of_all_three(faces: Workspace) -> None:
    pair = Pair.open(str(faces.folder))
    assert version_of(faces).name == version_name(
        pair.collection_fingerprint, pair.model_fingerprint, pair.index_fingerprint
    )


def test_what_waits_is_embedded_together_and_told(faces: Workspace) -> None:
    sizes: list[int] = []
    version = Version.load(settings(faces, max_batch=4), Pair.open(str(faces.folder)), sizes.append)
    jpegs = [version.gallery.jpeg_at(row) for row in range(9)]

    async def ask() -> list[np.ndarray]:
        return await asyncio.gather(*(version.embed(jpeg) for jpeg in jpegs))

    assert np.allclose(asyncio.run(ask()), stored_vectors(faces.folder)[:9], atol=1e-5)
    assert sum(sizes) == 9 and max(sizes) == 4


def test_who_is_alone_is_searched_for_in_the_network_s_own_thread(
    faces: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = version_of(faces)
    crop = version._blank

    def then(embedding: np.ndarray) -> tuple[str, float]:
        return threading.current_thread().name, float(embedding @ version._asked[0])

    async def ask() -> None:
        embedding, made = await version.embed_and(crop, then)
        assert made is not None and made[0][0] == "embed" and made[1] >= 0
        assert made[0][1] == pytest.approx(1, abs=1e-3) and np.allclose(embedding, version._asked[0], atol=1e-5)
        together = await asyncio.gather(*(version.embed_and(crop, then) for _ in range(3)))
        assert [made for _, made in together] == [None] * 3, "others wait for the network"
        monkeypatch.setattr("serve.engine.version.QUICK", len(version.gallery) - 1)
        large = version_of(faces)
        assert (await large.embed_and(crop, then))[1] is None, "a large gallery"
        large.close()

    asyncio.run(ask())
    version.close()


def test_a_gallery_that_grew_large_is_searched_elsewhere(
    faces: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = Version.load(settings(faces), Pair.open(str(shutil.copytree(faces.folder.path, tmp_path / "w"))))
    monkeypatch.setattr("serve.engine.version.QUICK", len(version.gallery))

    async def is_searched_at_once() -> bool:
        return (await version.embed_and(version._blank, lambda _: version.gallery.refresh()))[1] is not None

    assert asyncio.run(is_searched_at_once())
    assert version.gallery.store is not None
    added = dataclasses.replace(new_image("new.jpg", 1), vector=version._asked[0], prepared=version.prepared)
    version.gallery.store.add([added], version.pair.model_fingerprint)
    version.gallery.refresh()
    assert not asyncio.run(is_searched_at_once())
    version.close()


def test_a_frozen_network_answers_as_it_embedded(tmp_path: Path) -> None:
    """Its file comes with the bundle: where it lay before is gone."""
    write(tmp_path / "net", tiny())
    config = ModelConfig(backbone=f"onnx:{tmp_path / 'net'}", flip=True)
    made = make_workspace(tmp_path, prepare=PrepareConfig(size=32, crop="none"), config=config)
    shutil.rmtree(tmp_path / "net")
    version, vectors = version_of(made, precision="auto", engine="auto"), stored_vectors(made.folder)
    ids = version.pair.index.read_table(IDS)["image_id"].to_pylist()
    (face,) = seen(version, made.photos[ids[7]].read_bytes()).faces
    assert np.allclose(asyncio.run(version.embed(face.jpeg)), vectors[7], atol=1e-5)
    told = loaded_model(version)
    assert (told.dim, told.licence, told.engine) == (DIM, "MIT", "onnxruntime")


def test_a_part_of_a_whole_photo_is_shrunk_as_the_whole_photo_would_be_for_the_network(whole: Workspace) -> None:
    """96 of 218 pixels."""
    version, photo = version_of(whole), next(iter(whole.photos.values())).read_bytes()
    plain, cut = seen(version, photo), seen(version, photo, box=(10.4, 20.0, 150.0, 200.0))
    assert plain.faces[0].box == (0, 0, 178, 218) and max(pixels.stored_size(plain.faces[0].jpeg)) == 160
    assert cut.faces[0].box == (10, 20, 150, 200) and pixels.stored_size(cut.faces[0].jpeg) == (62, 79)


def test_what_is_loaded(faces: Workspace) -> None:
    version = version_of(faces)
    model, index = version.describe(), version.describe_index()
    assert (model.fingerprint, model.crop, model.device) == (version.pair.model_fingerprint, "face", "cpu")
    assert (index.fingerprint, index.factory, index.num_images) == (version.pair.index_fingerprint, "Flat", 20)
    assert (index.num_identities, index.vectors) == (5, "index")


def test_a_model_that_was_replaced_while_the_service_started_is_refused(faces: Workspace, tmp_path: Path) -> None:
    pair = Pair.open(str(shutil.copytree(faces.folder.path, tmp_path / "w")))
    pair.model.write_json(MANIFEST, {**pair.model.read_json(MANIFEST), "fingerprint": "e" * 64})
    with pytest.raises(ValueError, match="holds model eeeeeeeeeeee, expected"):
        Version.load(settings(faces), pair)


def test_a_server_that_shall_expand_wants_an_index_that_can(faces: Workspace, tmp_path: Path) -> None:
    folder = with_index(faces, tmp_path / "w", "SQ8")
    shutil.rmtree(Path(folder.path) / "embeddings/test")
    with pytest.raises(ValueError, match="cannot be expanded by default.*'SQ8'"):
        Version.load(settings(faces, expand=1), Pair.open(str(folder)))


def test_a_version_that_fails_while_it_is_loaded_leaves_nobody_to_follow_a_log(
    faces: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "host"))
    pair = Pair.open(str(shutil.copytree(faces.folder.path, tmp_path / "w")))
    (tmp_path / "w/live/log").mkdir(parents=True, exist_ok=True)
    seen: list[bool] = []

    def fail(version: Version) -> None:
        seen.append(is_followed())
        raise ValueError("it is no good")

    def is_followed() -> bool:
        return "follow-log" in [thread.name for thread in threading.enumerate()]

    monkeypatch.setattr(Version, "_warm_up", fail)
    with pytest.raises(ValueError, match="no good"):
        Version.load(settings(faces), pair)
    assert seen == [True] and not is_followed()


def test_a_network_that_gives_something_else_is_noticed(faces: Workspace) -> None:
    version = version_of(faces)
    version._asked = -version._asked
    with pytest.raises(ValueError, match="another embedding"):
        asyncio.run(version.check_model())
