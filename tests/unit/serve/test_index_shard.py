"""The index part of the query service, called directly: answers, expansion as the library does it, refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import IDS
from retrieval.artifacts.manifest import MANIFEST
from retrieval.artifacts.published import Pair
from retrieval.search.expansion import expand_by_search
from retrieval.search.index import Searcher
from retrieval.search.settings import ExpansionConfig
from serve import index_shard
from serve.index_shard import IndexShard
from serve.messages import Found, Unusable
from tests.support.workspace import Workspace, make_workspace, queries_near, stored_vectors, with_index

HOLDS_VECTORS = ["Flat", "KDTree", "IVF3,Flat", "HNSW8", "PQ8x4,RFlat", "IVF2,PQ8x4fs,RFlat"]
HOLDS_CODES = ["PQ8x4", "IVF2,PQ8x4", "SQ8", "PCA16,Flat"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("expansion"), num_identities=6)


@pytest.fixture(scope="module")
def gallery(made: Workspace) -> np.ndarray:
    return stored_vectors(made.folder)


@pytest.fixture(scope="module")
def pair(made: Workspace) -> Pair:
    return Pair.open(str(made.folder))


@pytest.mark.parametrize("factory", [*HOLDS_VECTORS, *HOLDS_CODES])
def test_an_expanded_answer_is_the_offline_one(
    made: Workspace, gallery: np.ndarray, tmp_path: Path, factory: str
) -> None:
    pair = Pair.open(str(with_index(made, tmp_path / "w", factory)))
    part, searcher = IndexShard(pair), Searcher.open(pair.index)
    assert part.describe().vectors == ("index" if factory in HOLDS_VECTORS else "embeddings")
    assert part.describe().factory == factory
    for num, alpha in ((1, 3.0), (5, 3.0), (5, 0.0), (100, 2.0)):
        config = ExpansionConfig(num=num, alpha=alpha)
        asked = expand_by_search(queries_near(gallery), gallery, searcher.search, config)
        want = searcher.search(asked, 7)
        for row, query in enumerate(queries_near(gallery)):
            got = part.search(query, 7, pair.model_fingerprint, config)
            assert isinstance(got, Found)
            there = want.rows[row] >= 0
            assert got.rows == want.rows[row][there].tolist()
            assert np.allclose(got.scores, want.scores[row][there], atol=1e-5)
            assert got.expansion is not None and got.expansion.alpha == alpha
            assert got.expansion.num <= min(num, len(gallery))
            if factory == "Flat":
                assert got.expansion.num == min(num, len(gallery))


def test_without_expansion_the_query_is_asked_as_it_is(pair: Pair, gallery: np.ndarray) -> None:
    got = IndexShard(pair).search(queries_near(gallery)[0], 5, pair.model_fingerprint)
    assert isinstance(got, Found) and got.expansion is None
    want = Searcher.open(pair.index).search(queries_near(gallery)[:1], 5)
    assert got.rows == want.rows[0].tolist() and got.scores == want.scores[0].tolist()
    ids = pair.index.read_table(IDS).to_pylist()
    assert got.image_ids == [ids[row]["image_id"] for row in got.rows]
    assert got.labels == [ids[row]["label"] for row in got.rows]
    assert got.index == pair.index_fingerprint
    assert got.seconds > 0


def test_more_than_there_are_is_all_there_are(pair: Pair, gallery: np.ndarray) -> None:
    got = IndexShard(pair).search(gallery[3], 10_000, pair.model_fingerprint)
    assert isinstance(got, Found)
    assert sorted(got.rows) == list(range(len(gallery)))
    assert len(got.scores) == len(got.image_ids) == len(got.labels) == len(gallery)
    assert got.rows[0] == 3
    assert np.isfinite(got.scores).all()


def test_an_index_that_finds_less_answers_with_less(pair: Pair, gallery: np.ndarray) -> None:
    """What an approximate index does not find is left out of the answer and of what the query takes on."""
    part = IndexShard(pair)
    searcher = part._searcher
    searcher.shards = searcher.shards[:1]
    held = set(searcher.shards[0].rows.tolist())
    expansion = ExpansionConfig(num=len(gallery), alpha=1.0)
    got = part.search(gallery[0], len(gallery), pair.model_fingerprint, expansion)
    assert isinstance(got, Found) and got.expansion is not None
    assert set(got.rows) == held and len(got.scores) == len(got.image_ids) == len(held) < len(gallery)
    assert got.expansion.num == len(held)


def test_a_query_of_another_model_is_refused(pair: Pair, gallery: np.ndarray) -> None:
    part = IndexShard(pair)
    for expansion in (None, ExpansionConfig(num=2)):
        with pytest.raises(ValueError, match="embedded by model ffffffffffff, this index is of"):
            part.search(gallery[0], 5, "f" * 64, expansion)


def test_an_index_that_was_replaced_while_the_service_started_is_refused(made: Workspace, tmp_path: Path) -> None:
    pair = Pair.open(str(shutil.copytree(made.folder.path, tmp_path / "w")))
    pair.index.write_json(MANIFEST, {**pair.index.read_json(MANIFEST), "fingerprint": "e" * 64})
    with pytest.raises(ValueError, match="holds index eeeeeeeeeeee, expected"):
        IndexShard(pair)


def test_one_thread_answers_a_query(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, opened = {}, Searcher.open

    def open_with(folder: Folder, num_threads: int) -> Searcher:
        asked["threads"] = num_threads
        return opened(folder, num_threads=num_threads)

    monkeypatch.setattr(index_shard.Searcher, "open", open_with)
    IndexShard(pair)
    assert asked == {"threads": 1}


def test_what_is_loaded(made: Workspace, pair: Pair, gallery: np.ndarray) -> None:
    part = IndexShard(pair)
    told = part.describe()
    assert told.fingerprint == pair.index_fingerprint
    assert (told.num_images, told.num_identities) == (len(gallery), len(set(made.labels.values())))
    assert (told.factory, told.dim, told.vectors) == ("Flat", gallery.shape[1], "index")
    part._searcher.labels = part._searcher.labels.copy()
    part._searcher.labels[:] = [None] * (len(gallery) - 3) + ["a", "b", "a"]
    assert part.describe().num_identities == 2  # photos without a label are nobody


def test_an_index_of_codes_without_its_embeddings_says_so(made: Workspace, gallery: np.ndarray, tmp_path: Path) -> None:
    folder = with_index(made, tmp_path / "w", "SQ8")
    shutil.rmtree(Path(folder.path) / "embeddings/test")
    pair = Pair.open(str(folder))
    part = IndexShard(pair)
    assert part.describe().vectors == "none"
    assert isinstance(part.search(queries_near(gallery)[0], 5, pair.model_fingerprint), Found)
    refused = part.search(queries_near(gallery)[0], 5, pair.model_fingerprint, ExpansionConfig(num=3))
    assert isinstance(refused, Unusable) and refused.reason == "bad-parameter"
    assert "'SQ8'" in refused.detail and "not in the workspace" in refused.detail
    with pytest.raises(ValueError, match="cannot be expanded by default.*'SQ8'"):
        IndexShard(pair, must_expand=True)


def test_an_index_that_can_expand_may_have_to(pair: Pair) -> None:
    assert IndexShard(pair, must_expand=True).describe().vectors == "index"
