"""What a search was told, and its answer: expansion as the library does it offline, decisions, ways to ask."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.artifacts.calibration import Calibration, Curve, Rate
from retrieval.artifacts.published import Pair
from retrieval.search.expansion import expand_by_search
from retrieval.search.index import Searcher
from retrieval.search.settings import ExpansionConfig
from serve.edge import Refusal
from serve.engine import query
from serve.engine.clock import Clock
from serve.engine.version import Version
from serve.engine.wording import Found, Wording
from serve.schemas import SearchOptions
from serve.settings import ServeArgs
from tests.support.inside import settings
from tests.support.workspace import Workspace, make_workspace, queries_near, stored_vectors, with_index

HOLDS_VECTORS = ["Flat", "KDTree", "IVF3,Flat", "HNSW8", "PQ8x4,RFlat", "IVF2,PQ8x4fs,RFlat"]
HOLDS_CODES = ["PQ8x4", "IVF2,PQ8x4", "SQ8", "PCA16,Flat"]
CALIBRATION = Calibration(
    model="m",
    people=80,
    curve=Curve(intercept=0.0, low=20.0, high=2.0),
    rates=(Rate(far=1e-3, threshold=0.8, threshold_interval=(0.75, 0.85)), Rate(far=1e-4, why="too few people")),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("expansion"), num_identities=6)


@pytest.fixture(scope="module")
def version(made: Workspace) -> Version:
    return Version.load(settings(made), Pair.open(str(made.folder)))


@pytest.fixture(scope="module")
def vectors(made: Workspace) -> np.ndarray:
    return stored_vectors(made.folder)


def args_of(**more: Any) -> ServeArgs:
    return ServeArgs(workspace="w", **more)


@pytest.mark.parametrize("factory", [*HOLDS_VECTORS, *HOLDS_CODES])
def test_an_expanded_answer_is_the_offline_one(
    made: Workspace, vectors: np.ndarray, tmp_path: Path, factory: str
) -> None:
    pair = Pair.open(str(with_index(made, tmp_path / "w", factory)))
    version, searcher = Version.load(settings(made), pair), Searcher.open(pair.index)
    assert version.gallery.vectors == ("index" if factory in HOLDS_VECTORS else "embeddings")
    for num, alpha in ((1, 3.0), (5, 3.0), (5, 0.0), (100, 2.0)):
        config = ExpansionConfig(num=num, alpha=alpha)
        asked = expand_by_search(queries_near(vectors), vectors, searcher.search, config)
        want = searcher.search(asked, 7)
        for row, embedding in enumerate(queries_near(vectors)):
            got = query.search(args_of(), version, SearchOptions(k=7, expand=num, alpha=alpha), embedding)
            there = want.rows[row] >= 0
            assert [hit.row for hit in got.hits] == want.rows[row][there].tolist()
            assert np.allclose([hit.score for hit in got.hits], want.scores[row][there], atol=1e-5)
            assert got.expansion is not None and got.expansion.alpha == alpha
            assert got.expansion.num <= min(num, len(vectors))
    version.close()


def test_a_query_that_does_not_say_is_expanded_as_the_server_is_set(version: Version, vectors: np.ndarray) -> None:
    def of(args: ServeArgs, **options: Any) -> ExpansionConfig | None:
        return query.search(args, version, SearchOptions(**options), vectors[0]).expansion

    assert of(args_of(expand=3, alpha=1.5)) == ExpansionConfig(num=3, alpha=1.5)
    assert of(args_of(expand=3), expand=0) is None
    assert of(args_of(), expand=2, alpha=0.0) == ExpansionConfig(num=2, alpha=0.0)
    assert of(args_of()) is None


def test_no_result_scores_less_than_was_asked_for(version: Version, vectors: np.ndarray) -> None:
    everything = query.search(args_of(), version, SearchOptions(k=24), vectors[0])
    least = everything.hits[5].score
    some = query.search(args_of(), version, SearchOptions(k=24, min_score=least), vectors[0])
    assert some.hits == [hit for hit in everything.hits if hit.score >= least] and len(some.hits) >= 6


@pytest.mark.parametrize(
    ("options", "with_photo", "says"),
    [
        ({"k": 101}, True, "k: 101 is above 100, the limit of this server"),
        ({"expand": 101}, True, "expand: 101 is above 100"),
        ({}, False, "Give one of"),
        ({"image_id": "a"}, True, "Give one of"),
        ({"image_id": "a", "embedding": [1.0]}, False, "Give one of"),
        ({"box": (0, 0, 9, 9)}, True, "box: this service finds by itself"),
        ({"min_probability": 0.5}, True, "never calibrated"),
    ],
)
def test_what_cannot_be_done_is_refused(version: Version, options: dict[str, Any], with_photo: bool, says: str) -> None:
    with pytest.raises(Refusal) as refused:
        query.check_options(args_of(), version, SearchOptions(**options), with_photo)
    assert refused.value.reason == "bad-parameter" and says in refused.value.message


def test_a_rate_that_was_not_looked_at_is_refused(version: Version) -> None:
    calibrated = _with(version, calibration=CALIBRATION)
    query.check_options(args_of(), calibrated, SearchOptions(far=1e-4, min_probability=0.2), True)
    with pytest.raises(Refusal, match="far: There is no threshold at a false-accept rate of 0.5"):
        query.check_options(args_of(), calibrated, SearchOptions(far=0.5), True)


def test_what_was_measured_of_photos_is_not_said_of_words(version: Version, vectors: np.ndarray) -> None:
    calibrated = _with(version, calibration=CALIBRATION)
    found = query.search(args_of(), version, SearchOptions(k=3), vectors[0])
    photo, words = (Wording(calibrated, SearchOptions(text=text), "") for text in (None, "red"))
    assert photo.decision(found).answer == "match" and photo.results(found)[0].probability is not None
    assert words.decision(found).answer == "cannot tell" and words.decision(found).threshold is None
    assert [one.probability for one in words.results(found)] == [None] * 3


def _with(version: Version, **attributes: Any) -> Version:
    copy = object.__new__(Version)
    copy.__dict__.update({**version.__dict__, **attributes})
    return copy


def test_asked_with_images_of_the_gallery_or_a_vector(version: Version, vectors: np.ndarray) -> None:
    ids = version.gallery.searcher.ids
    assert np.allclose(query._embedding_of(version, SearchOptions(image_id=ids[3])), vectors[3], atol=1e-6)
    both = [{"image_id": ids[3]}, {"image_id": ids[5], "weight": -0.5}]
    want = vectors[3] - 0.5 * vectors[5]
    got = query._embedding_of(version, SearchOptions.model_validate({"image_ids": both}))
    assert np.allclose(got, want / np.linalg.norm(want), atol=1e-6) and got.dtype == np.float32
    sent = query._embedding_of(version, SearchOptions(embedding=(7 * vectors[2]).tolist()))
    assert np.allclose(sent, vectors[2], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "reason", "says"),
    [
        ({"image_id": "nobody"}, "not-found", "'nobody'"),
        ({"embedding": [1.0, 2.0]}, "bad-parameter", "has 2 numbers"),
        ({"embedding": [0.0] * 4096}, "bad-parameter", "numbers"),
    ],
)
def test_what_cannot_be_asked_with(version: Version, options: dict[str, Any], reason: str, says: str) -> None:
    with pytest.raises(Refusal) as refused:
        query._embedding_of(version, SearchOptions.model_validate(options))
    assert refused.value.reason == reason and says in refused.value.message


def test_parts_that_cancel_out_are_no_question(version: Version) -> None:
    image_id = version.gallery.searcher.ids[0]
    twice = [{"image_id": image_id}, {"image_id": image_id, "weight": -1}]
    with pytest.raises(Refusal, match="no direction"):
        query._embedding_of(version, SearchOptions.model_validate({"image_ids": twice}))


def test_the_decision_is_the_calibration_s_for_the_nearest(version: Version, vectors: np.ndarray) -> None:
    calibrated = _with(version, calibration=CALIBRATION)
    found = query.search(args_of(), calibrated, SearchOptions(k=3), vectors[0])
    told = Wording(calibrated, SearchOptions(k=3), "")
    decided = told.decision(found)
    assert (decided.answer, decided.promised, decided.threshold, decided.far) == ("match", True, 0.8, 1e-3)
    far_off = dataclasses.replace(found, nearest=-0.9)
    assert told.decision(far_off).answer == "nobody"
    assert told.decision(dataclasses.replace(found, nearest=0.8)).answer == "cannot tell"
    assert told.decision(Found([], None, None)).answer == "nobody"
    unknown = Wording(version, SearchOptions(), "").decision(found)
    assert unknown.answer == "cannot tell" and "never calibrated" in unknown.why


def test_results_say_how_probable_they_are_unless_the_query_was_expanded(version: Version, vectors: np.ndarray) -> None:
    calibrated = _with(version, calibration=CALIBRATION)
    options = SearchOptions(k=24, min_probability=0.5)
    found = query.search(args_of(), calibrated, options, vectors[0])
    results = Wording(calibrated, options, "/p").results(found)
    want = [CALIBRATION.probability(hit.score) for hit in found.hits]
    assert [result.probability for result in results] == [one for one in want if one is not None and one >= 0.5]
    assert [result.rank for result in results] == list(range(1, len(results) + 1))
    assert results[0].thumbnail.startswith("/p/v1/images/img_align_celeba%2F")
    expanded = query.search(args_of(), calibrated, SearchOptions(k=3, expand=2), vectors[0])
    assert {one.probability for one in Wording(calibrated, SearchOptions(), "").results(expanded)} == {None}


def test_the_clock_adds_up_what_a_stage_took_also_when_it_fails() -> None:
    clock = Clock()
    for _ in range(2):
        with pytest.raises(KeyError), clock.stage("embed"):
            raise KeyError
    seconds = clock.seconds()
    assert 0 < seconds.embed <= seconds.total and seconds.search == 0
