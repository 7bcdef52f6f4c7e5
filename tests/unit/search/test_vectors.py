"""The index part of the query service expands a query as the library does, whatever kind of index it holds."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts import published
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import MANIFEST
from retrieval.artifacts.published import Pair
from retrieval.search.expansion import expand_by_search
from retrieval.search.index import Searcher
from retrieval.search.settings import ExpansionConfig, IndexConfig
from retrieval.search.vectors import GalleryVectors
from serve.index_shard import IndexShard
from serve.messages import Found, Unusable
from tests.support.workspace import Workspace, make_index, make_workspace, stored_vectors

HOLDS_VECTORS = ["Flat", "KDTree", "IVF3,Flat", "HNSW8", "PQ8x4,RFlat", "IVF2,PQ8x4fs,RFlat"]
HOLDS_CODES = ["PQ8x4", "IVF2,PQ8x4", "SQ8", "PCA16,Flat"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("expansion"), num_identities=6)


@pytest.fixture(scope="module")
def gallery(made: Workspace) -> np.ndarray:
    return stored_vectors(made.folder)


def with_index(made: Workspace, folder: Path, factory: str) -> Folder:
    """The workspace with another index, at another place: what lies in it is found by its relative path."""
    there = Folder.of(shutil.copytree(made.folder.path, folder, ignore=shutil.ignore_patterns("index")))
    index = there / "index/test"
    make_index(index, there / "embeddings/test", IndexConfig(factory=factory, num_shards=2), there / "collection/test")
    published.publish(there, collection=there / "collection/test", model=there / "model/test", index=index)
    return there


def queries(gallery: np.ndarray, num: int = 4) -> np.ndarray:
    x = gallery[:num] + 0.05 * np.random.default_rng(0).normal(size=(num, gallery.shape[1]))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("factory", [*HOLDS_VECTORS, *HOLDS_CODES])
def test_an_expanded_answer_is_the_offline_one(
    made: Workspace, gallery: np.ndarray, tmp_path: Path, factory: str
) -> None:
    pair = Pair.open(str(with_index(made, tmp_path / "w", factory)))
    part, searcher = IndexShard(pair), Searcher.open(pair.index)
    assert part.describe().vectors == ("index" if factory in HOLDS_VECTORS else "embeddings")
    for num, alpha in ((1, 3.0), (5, 3.0), (5, 0.0), (100, 2.0)):
        config = ExpansionConfig(num=num, alpha=alpha)
        asked = expand_by_search(queries(gallery), gallery, searcher.search, config)
        want = searcher.search(asked, 7)
        for row, query in enumerate(queries(gallery)):
            got = part.search(query, 7, pair.model_fingerprint, config)
            assert isinstance(got, Found)
            there = want.rows[row] >= 0
            assert got.rows == want.rows[row][there].tolist()
            assert np.allclose(got.scores, want.scores[row][there], atol=1e-5)
            assert got.expansion is not None and got.expansion.alpha == alpha
            assert got.expansion.num <= min(num, len(gallery))
            if factory == "Flat":
                assert got.expansion.num == min(num, len(gallery))


def test_without_expansion_the_query_is_asked_as_it_is(made: Workspace, gallery: np.ndarray) -> None:
    pair = Pair.open(str(made.folder))
    got = IndexShard(pair).search(queries(gallery)[0], 5, pair.model_fingerprint)
    assert isinstance(got, Found) and got.expansion is None
    want = Searcher.open(pair.index).search(queries(gallery)[:1], 5)
    assert got.rows == want.rows[0].tolist() and got.scores == want.scores[0].tolist()


def test_vectors_of_any_rows_in_any_shape(made: Workspace, gallery: np.ndarray, tmp_path: Path) -> None:
    rows = np.random.default_rng(1).integers(0, len(gallery), size=(3, 50))
    for factory in ("Flat", "KDTree", "IVF3,Flat", "SQ8"):
        pair = Pair.open(str(with_index(made, tmp_path / factory, factory)))
        vectors = GalleryVectors(Searcher.open(pair.index), pair.workspace)
        assert np.array_equal(vectors(rows), gallery[rows]), factory
        assert vectors(np.empty((1, 0), np.int64)).shape == (1, 0, gallery.shape[1])


def test_an_index_of_codes_without_its_embeddings_says_so(made: Workspace, gallery: np.ndarray, tmp_path: Path) -> None:
    folder = with_index(made, tmp_path / "w", "SQ8")
    shutil.rmtree(Path(folder.path) / "embeddings/test")
    pair = Pair.open(str(folder))
    part = IndexShard(pair)
    assert part.describe().vectors == "none"
    assert isinstance(part.search(queries(gallery)[0], 5, pair.model_fingerprint), Found)
    refused = part.search(queries(gallery)[0], 5, pair.model_fingerprint, ExpansionConfig(num=3))
    assert isinstance(refused, Unusable) and refused.reason == "bad-parameter"
    assert "SQ8" in refused.detail and "not in the workspace" in refused.detail
    with pytest.raises(ValueError, match="cannot be expanded by default"):
        IndexShard(pair, must_expand=True)
    with pytest.raises(ValueError, match="holds codes"):
        GalleryVectors(Searcher.open(pair.index), pair.workspace)(np.array([0]))


def test_other_embeddings_are_not_taken_for_those_of_the_index(made: Workspace, tmp_path: Path) -> None:
    folder = with_index(made, tmp_path / "w", "SQ8")
    embeddings = folder / "embeddings/test"
    manifest = embeddings.read_json(MANIFEST)
    embeddings.write_json(MANIFEST, {**manifest, "fingerprint": "f" * 64})
    assert IndexShard(Pair.open(str(folder))).describe().vectors == "none"
