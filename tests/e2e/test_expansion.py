"""Query expansion over real HTTP: the answer is the one that the library gives offline."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from retrieval.models.embedder import Embedder
from retrieval.search.expansion import expand_by_search
from retrieval.search.index import Searcher
from retrieval.search.ranking import Neighbours
from retrieval.search.settings import ExpansionConfig
from serve.schemas import Answer, ErrorBody, Info
from tests.support.service import MAX_K, Service, running_service
from tests.support.workspace import stored_vectors

MAX_EXPAND = 25


@pytest.fixture(scope="module")
def service(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("expand"), max_expand=MAX_EXPAND, alpha=2.0) as running:
        yield running


def search(service: Service, query: str) -> httpx.Response:
    photo = next(iter(service.made.photos.values())).read_bytes()
    return service.client.post(f"/search?{query}", content=photo, headers={"Content-Type": "image/jpeg"})


def offline(service: Service, crop: bytes, k: int, config: ExpansionConfig) -> tuple[list[str], list[float]]:
    folder = service.made.folder
    searcher = Searcher.open(folder / "index/test")
    query = Embedder(folder / "model/test", device="cpu", precision="fp32", num_threads=1).embed_jpegs([crop])
    found: Neighbours = searcher.search(
        expand_by_search(query, stored_vectors(folder), searcher.search, config), min(k, len(searcher))
    )
    return searcher.ids[found.rows[0]].tolist(), found.scores[0].tolist()


@pytest.mark.parametrize(("num", "alpha"), [(1, 3.0), (5, 3.0), (5, 0.0), (MAX_EXPAND, 1.5)])
def test_an_expanded_answer_is_the_offline_one(service: Service, num: int, alpha: float) -> None:
    answer = Answer.model_validate(search(service, f"k={MAX_K}&crop=true&expand={num}&alpha={alpha}").json())
    assert answer.query.crop is not None
    crop = base64.b64decode(answer.query.crop.partition(",")[2])
    ids, scores = offline(service, crop, MAX_K, ExpansionConfig(num=num, alpha=alpha))
    assert [result.image_id for result in answer.results] == ids
    assert np.allclose([result.score for result in answer.results], scores, atol=1e-5)
    assert answer.expansion is not None
    # The gallery has 20 images: no more can be taken on.
    assert (answer.expansion.num, answer.expansion.alpha) == (min(num, len(service.made.photos)), alpha)


def test_expansion_is_off_unless_asked_for_and_changes_scores(service: Service) -> None:
    plain = Answer.model_validate(search(service, "k=5").json())
    off = Answer.model_validate(search(service, "k=5&expand=0&alpha=3").json())
    expanded = Answer.model_validate(search(service, "k=5&expand=4").json())
    assert plain.expansion is None and off.expansion is None
    assert plain.results == off.results
    assert expanded.expansion is not None and expanded.expansion.alpha == 2.0  # this server's default
    assert abs(expanded.results[0].score - plain.results[0].score) > 1e-4


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("expand=-1", "greater than or equal to 0"),
        (f"expand={MAX_EXPAND + 1}", f"less than or equal to {MAX_EXPAND}"),
        ("expand=many", "integer"),
        ("expand=3&alpha=-0.5", "greater than or equal to 0"),
        ("expand=3&alpha=21", "less than or equal to 20"),
        ("expand=3&alpha=nan", "finite"),
        ("expand=3&alpha=x", "number"),
        ("box=1,2,3,4", "finds by itself what to search with (crop 'face')"),
        ("box=1,2,3", "expected x1,y1,x2,y2"),
    ],
)
def test_parameters_out_of_their_limits(service: Service, query: str, says: str) -> None:
    response = search(service, query)
    assert response.status_code == 422, response.text
    error = ErrorBody.model_validate(response.json()).error
    assert error.reason == "bad-parameter" and says in error.message
    assert query.rpartition("&")[2].partition("=")[0] in error.message


def test_info_says_what_can_be_asked_for(service: Service) -> None:
    info = Info.model_validate(service.client.get("/info").json())
    assert (info.limits.max_expand, info.defaults.expand, info.defaults.alpha) == (MAX_EXPAND, 0, 2.0)
    assert info.index.vectors == "index"
