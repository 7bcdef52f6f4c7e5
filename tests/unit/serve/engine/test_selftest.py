"""A version shows that its files are whole and that it finds its own photos, or it does not answer."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.collection import CATALOG
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.published import Pair
from retrieval.live.rows import NewImage
from retrieval.models.bundle import save_bundle, start
from serve.engine.selftest import Unfit, check_answers, check_files
from serve.engine.version import Version
from tests.support.inside import settings
from tests.support.versions import flip
from tests.support.workspace import SHALLOW, Workspace, make_workspace, with_index


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("made"))


@pytest.fixture
def copy(made: Workspace, tmp_path: Path) -> Workspace:
    """The same, to be spoilt."""
    return dataclasses.replace(made, folder=Folder.of(shutil.copytree(made.folder.path, tmp_path / "w")))


@pytest.mark.parametrize("factory", ["Flat", "KDTree", "HNSW8", "IVF3,Flat", "PQ8x4", "SQ8", "PCA16,Flat"])
def test_every_kind_of_index_that_is_well_passes(made: Workspace, tmp_path: Path, factory: str) -> None:
    there = with_index(made, tmp_path / "w", factory)
    pair = Pair.open(str(there))
    check_files(pair)
    version = Version.load(settings(dataclasses.replace(made, folder=there)), pair)
    check_answers(version)
    version.close()


@pytest.mark.parametrize(
    "name",
    [
        "model/test/model.safetensors",
        "index/test/shard-00001.faiss",
        "index/test/ids.parquet",
        f"collection/test/{CATALOG}",
    ],
)
def test_a_file_that_is_not_what_was_sealed_is_found(copy: Workspace, name: str) -> None:
    pair = Pair.open(str(copy.folder))
    check_files(pair)
    flip(copy.folder, name)
    with pytest.raises(Unfit, match=f"{name} is not the file that was sealed"):
        check_files(pair)
    copy.folder.remove(name)
    with pytest.raises(Unfit, match=f"lacks {name.partition('/test/')[2]}, which was sealed there"):
        check_files(pair)


def test_photos_need_not_be_read_but_must_be_there(copy: Workspace) -> None:
    pair, name = Pair.open(str(copy.folder)), "collection/test/images/part-00000.parquet"
    flip(copy.folder, name)
    check_files(pair)
    copy.folder.remove(name)
    with pytest.raises(Unfit, match="lacks images/part-00000.parquet"):
        check_files(pair)


def version_of(copy: Workspace) -> Version:
    return Version.load(settings(copy), Pair.open(str(copy.folder)))


def test_a_model_that_did_not_make_the_vectors_is_found(copy: Workspace) -> None:
    version = version_of(copy)
    other = start(SHALLOW, preparation=version.embedder.spec.preparation, seed=9)
    save_bundle(other, bundle := copy.folder / "model/other")
    version.embedder = type(version.embedder)(bundle, device="cpu", precision="fp32", engine="torch")
    with pytest.raises(Unfit, match=r"does not give the vectors that the index holds: of .* the cosine is .*16 of 16"):
        check_answers(version)
    smaller = start(dataclasses.replace(SHALLOW, image_size=32), preparation=version.embedder.spec.preparation)
    save_bundle(smaller, bundle := copy.folder / "model/smaller")
    version.embedder = type(version.embedder)(bundle, device="cpu", precision="fp32", engine="torch")
    if version.embedder.dim != version.gallery.dim:
        with pytest.raises(Unfit, match="numbers a photo, and the index holds"):
            check_answers(version)


def test_an_index_whose_rows_are_mixed_up_is_found(copy: Workspace) -> None:
    version = version_of(copy)
    searcher = version.gallery.searcher
    version.gallery.sealed.vectors_of_rows.source = "none"  # as an index of codes: only what is found can tell
    check_answers(version)
    places = np.roll(np.arange(len(searcher)), 3)
    searcher.parts, searcher.rows_in_part = searcher.parts[places], searcher.rows_in_part[places]
    version.gallery.sealed.forget()
    with pytest.raises(Unfit, match="does not find its own photos: of 16 that were asked for, 0 came first"):
        check_answers(version)


def test_a_model_that_gives_no_numbers_is_found(copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    version = version_of(copy)
    real = version.embedder.embed_jpegs
    monkeypatch.setattr(version.embedder, "embed_jpegs", lambda jpegs: real(jpegs) * np.nan)
    with pytest.raises(Unfit, match="NaN"):
        check_answers(version)


def test_copies_that_were_added_since_hide_no_photo_of_the_index(copy: Workspace) -> None:
    version = version_of(copy)
    gallery = version.gallery
    assert gallery.store is not None
    first, deleted = str(gallery.searcher.ids[0]), str(gallery.searcher.ids[1])
    vector, jpeg = gallery.vector(first), gallery.jpeg(first)
    for number in range(30):
        image = NewImage(
            image_id=f"0/{number}.jpg",
            photo=f"0/{number}.jpg",
            jpeg=jpeg,
            width=96,
            height=96,
            content_hash=str(number),
            vector=vector,
        )
        gallery.store.add([image], version.pair.model_fingerprint)
    gallery.store.delete([deleted], {})
    check_answers(version)
    gallery.store.delete([str(image_id) for image_id in gallery.searcher.ids], {})
    check_answers(version)  # nothing of the index is left to ask for
