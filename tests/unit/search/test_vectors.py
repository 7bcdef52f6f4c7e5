"""The gallery's own vectors, whatever kind of index holds them, or where they lie else."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import MANIFEST, read_manifest
from retrieval.search.index import Searcher
from retrieval.search.vectors import GalleryVectors, find_embeddings
from tests.support.workspace import Workspace, make_workspace, stored_vectors, with_index


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("vectors"))


@pytest.fixture(scope="module")
def gallery(made: Workspace) -> np.ndarray:
    return stored_vectors(made.folder)


SOURCES = {"Flat": "index", "KDTree": "index", "IVF3,Flat": "index", "SQ8": "embeddings", "PCA16,Flat": "embeddings"}


@pytest.mark.parametrize("factory", SOURCES)
def test_vectors_of_any_rows_in_any_shape(made: Workspace, gallery: np.ndarray, tmp_path: Path, factory: str) -> None:
    rows = np.random.default_rng(1).integers(0, len(gallery), size=(3, 50))
    folder = with_index(made, tmp_path / "w", factory)
    vectors = GalleryVectors(Searcher.open(folder / "index/test"), folder)
    assert vectors.source == SOURCES[factory]
    assert np.array_equal(vectors(rows), gallery[rows])
    assert np.array_equal(vectors(np.array([len(gallery) - 1, 0])), gallery[[-1, 0]])
    assert vectors(np.empty((1, 0), np.int64)).shape == (1, 0, gallery.shape[1])
    turned = Searcher.open(folder / "index/test")
    turned.shards = turned.shards[::-1]  # whichever comes first, a row is its own shard's
    assert np.array_equal(GalleryVectors(turned, folder)(rows), gallery[rows])


def test_one_shard_of_codes_is_enough_to_read_all_from_elsewhere(made: Workspace, gallery: np.ndarray) -> None:
    searcher = Searcher.open(made.folder / "index/test")

    class Codes:
        dim = searcher.dim
        search = searcher.shards[1].engine.search

        def vectors_of(self, local: np.ndarray) -> None:
            return None

    searcher.shards[1].engine = Codes()
    vectors = GalleryVectors(searcher, made.folder)
    assert vectors.source == "embeddings"
    assert np.array_equal(vectors(np.arange(len(gallery))), gallery)


def test_without_embeddings_there_are_no_vectors(made: Workspace, tmp_path: Path) -> None:
    folder = with_index(made, tmp_path / "w", "SQ8")
    shutil.rmtree(Path(folder.path) / "embeddings")
    vectors = GalleryVectors(Searcher.open(folder / "index/test"), folder)
    assert vectors.source == "none"
    with pytest.raises(ValueError, match="holds codes"):
        vectors(np.array([0]))


def test_other_embeddings_are_not_taken_for_those_of_the_index(made: Workspace, tmp_path: Path) -> None:
    folder = with_index(made, tmp_path / "w", "SQ8")
    embeddings = folder / "embeddings/test"
    embeddings.write_json(MANIFEST, {**embeddings.read_json(MANIFEST), "fingerprint": "f" * 64})
    assert GalleryVectors(Searcher.open(folder / "index/test"), folder).source == "none"


def test_the_right_embeddings_are_found_among_others(made: Workspace, tmp_path: Path) -> None:
    folder = Folder.of(shutil.copytree(made.folder.path, tmp_path / "w"))
    sealed = read_manifest(folder / "embeddings/test").fingerprint
    Path(folder.path, "embeddings/test").rename(Path(folder.path, "embeddings/some other name"))
    (folder / "embeddings").write_bytes("a file", b"x")
    (folder / "embeddings/begun").write_bytes("part-00000.parquet", b"x")
    other = {**(folder / "embeddings/some other name").read_json(MANIFEST), "fingerprint": "0" * 64}
    (folder / "embeddings/another").write_json(MANIFEST, other)
    assert find_embeddings(folder, sealed) == folder / "embeddings/some other name"
    assert find_embeddings(folder, "0" * 64) == folder / "embeddings/another"
    assert find_embeddings(folder, "1" * 64) is None
    assert find_embeddings(Folder.of(tmp_path / "nothing"), sealed) is None
