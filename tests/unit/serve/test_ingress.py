"""The door of the service without Ray: its routes are asked over ASGI, and the parts behind it are stand-ins."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from retrieval.artifacts.published import Pair
from retrieval.search.settings import ExpansionConfig
from serve.ingress import Search
from serve.messages import Embedded, Found, Unusable
from serve.schemas import IndexInfo, ModelInfo, ServeArgs
from tests.support.workspace import Workspace, make_workspace

SEEN = Embedded(
    embedding=np.array([0.6, 0.8], np.float32),
    model="m" * 64,
    width=178,
    height=218,
    box=(1.0, 2.0, 30.5, 40.0),
    crop=b"crop",
    prepare_seconds=0.25,
    embed_seconds=0.5,
)
FOUND = Found(
    rows=[7, 3],
    scores=[0.75, 0.5],
    image_ids=["a/7.jpg", "b/3.jpg"],
    labels=["a", None],
    index="i" * 64,
    seconds=0.125,
    expansion=None,
)
MODEL = ModelInfo(fingerprint="m" * 64, embedding_dim=2, device="cpu", crop="face")
INDEX = IndexInfo(fingerprint="i" * 64, factory="Flat", num_images=20, num_identities=5, dim=2, vectors="index")


class Response:
    """What a handle's `remote` returns: awaited once, or cancelled."""

    def __init__(self, answer: Awaitable[Any]) -> None:
        self._answer, self.cancelled = answer, False

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer.__await__()

    def cancel(self) -> None:
        self.cancelled = True


class Method:
    """One method of a part: keeps what it was asked and answers, or raises, what it was given."""

    def __init__(self, answer: Any, seconds: float = 0.0) -> None:
        self.answer, self.seconds = answer, seconds
        self.asked: list[tuple[Any, ...]] = []
        self.responses: list[Response] = []

    def remote(self, *args: Any) -> Response:
        self.asked.append(args)
        self.responses.append(Response(self._later()))
        return self.responses[-1]

    async def _later(self) -> Any:
        await asyncio.sleep(self.seconds)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@dataclasses.dataclass
class Door:
    """A `Search` and the stand-ins behind it."""

    search: Search
    embed: Method
    find: Method
    model: Method
    index: Method

    def ask(self, method: str, path: str, root_path: str = "", **options: Any) -> httpx.Response:
        return self.run(lambda client: client.request(method, path, **options), root_path)

    def run(self, questions: Callable[[httpx.AsyncClient], Awaitable[Any]], root_path: str = "") -> Any:
        async def send() -> Any:
            api = self.search.__serve_build_asgi_app__()
            transport = httpx.ASGITransport(api, raise_app_exceptions=False, root_path=root_path)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await questions(client)

        return asyncio.run(send())

    def post(self, query: str = "", content: bytes = b"photo", kind: str = "image/jpeg") -> httpx.Response:
        return self.ask("POST", f"/search?{query}", content=content, headers={"Content-Type": kind})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("door"))


@pytest.fixture(scope="module")
def pair(made: Workspace) -> Pair:
    return Pair.open(str(made.folder))


def door(pair: Pair, **settings: Any) -> Door:
    embed, find, model, index = Method(SEEN), Method(FOUND), Method(MODEL), Method(INDEX)
    parts: Any = (SimpleNamespace(embed=embed, describe=model), SimpleNamespace(search=find, describe=index))
    return Door(Search(ServeArgs(workspace="w", **settings), pair, *parts), embed, find, model, index)


def refusal(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["reason"]


def test_an_answer_is_what_the_parts_found(pair: Pair) -> None:
    at = door(pair)
    answer = at.post("k=2").json()
    assert at.embed.asked == [(b"photo", None)]
    ((embedding, k, model, expansion),) = at.find.asked
    assert embedding is SEEN.embedding
    assert (k, model, expansion) == (2, SEEN.model, None)
    told = ("rank", "image_id", "score", "label", "thumbnail")
    assert [{name: one[name] for name in told} for one in answer["results"]] == [
        {"rank": 1, "image_id": "a/7.jpg", "score": 0.75, "label": "a", "thumbnail": "/gallery/7"},
        {"rank": 2, "image_id": "b/3.jpg", "score": 0.5, "label": None, "thumbnail": "/gallery/3"},
    ]
    assert answer["query"].items() >= {"width": 178, "height": 218, "box": [1.0, 2.0, 30.5, 40.0], "crop": None}.items()
    assert (answer["model"], answer["index"], answer["expansion"]) == (SEEN.model, FOUND.index, None)
    seconds = answer["seconds"]
    assert (seconds["prepare"], seconds["embed"], seconds["search"]) == (0.25, 0.5, 0.125)
    assert 0 < seconds["total"] < 10


def test_the_crop_is_sent_only_when_asked_for(pair: Pair) -> None:
    crop = door(pair).post("crop=true").json()["query"]["crop"]
    assert base64.b64decode(crop.removeprefix("data:image/jpeg;base64,")) == b"crop"


@pytest.mark.parametrize(("root", "prefix"), [("/faces", "/faces"), ("/", ""), ("", "")])
def test_thumbnails_are_below_the_service_s_own_path(pair: Pair, root: str, prefix: str) -> None:
    at = door(pair)
    photo: dict[str, Any] = {"content": b"photo", "headers": {"Content-Type": "image/jpeg"}}
    answer = at.ask("POST", f"{prefix}/search", root_path=root, **photo)
    assert answer.json()["results"][0]["thumbnail"] == f"{prefix}/gallery/7"


@pytest.mark.parametrize(("max_k", "k"), [(100, 10), (4, 4)])
def test_what_a_query_gets_that_does_not_say(pair: Pair, max_k: int, k: int) -> None:
    at = door(pair, max_k=max_k)
    at.post()
    assert at.find.asked[0][1] == k


def test_expansion_is_the_server_s_unless_the_query_says(pair: Pair) -> None:
    at = door(pair, expand=3, alpha=1.5, max_expand=8)
    for query in ("", "expand=0", "expand=8", "alpha=0", "expand=2&alpha=20"):
        at.post(query)
    want = [(3, 1.5), None, (8, 1.5), (3, 0), (2, 20)]
    assert [asked[3] for asked in at.find.asked] == [one and ExpansionConfig(num=one[0], alpha=one[1]) for one in want]
    at.find.answer = dataclasses.replace(FOUND, expansion=ExpansionConfig(num=2, alpha=1.5))
    assert at.post().json()["expansion"] == {"num": 2, "alpha": 1.5}


@pytest.mark.parametrize(
    "query", ["k=0", "k=13", "k=x", "expand=9", "expand=-1", "alpha=-1", "alpha=20.1", "alpha=nan", "box=1,2,3", "box="]
)
def test_limits_of_the_parameters(pair: Pair, query: str) -> None:
    at = door(pair, max_k=12, max_expand=8)
    response = at.post(query)
    assert refusal(response) == (422, "bad-parameter")
    assert query.partition("=")[0] in response.json()["error"]["message"]
    assert at.embed.asked == []
    assert at.post("k=12&expand=8&alpha=20").status_code == 200


def test_a_box_goes_to_who_sees_the_photo(pair: Pair) -> None:
    at = door(pair)
    at.post("box=1,2,30.5,40")
    assert at.embed.asked == [(b"photo", (1.0, 2.0, 30.5, 40.0))]


def test_bodies_are_checked_before_anything_is_asked(pair: Pair) -> None:
    at = door(pair, max_body_bytes=1024)
    assert refusal(at.post(content=b"x" * 1025)) == (413, "body-too-large")
    assert refusal(at.post(kind="application/json")) == (415, "not-a-photo")
    assert at.embed.asked == []
    assert at.post(content=b"x" * 1024).status_code == 200


def test_what_a_part_cannot_use_is_refused_with_its_reason(pair: Pair) -> None:
    at = door(pair)
    at.embed.answer = Unusable(reason="no-face", detail="of 9")
    response = at.post()
    assert refusal(response) == (422, "no-face")
    assert response.json()["error"]["message"].endswith("(of 9)")
    assert at.find.asked == []
    at.embed.answer, at.find.answer = SEEN, Unusable(reason="bad-parameter", detail="expand: no")
    assert refusal(at.post()) == (422, "bad-parameter")


def test_a_failure_of_a_part_is_ours_and_told_without_its_words(pair: Pair) -> None:
    at = door(pair)
    at.find.answer = ValueError("secret")
    response = at.post()
    assert refusal(response) == (500, "internal")
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BackPressureError(1, 1), "busy"),
        (DeploymentUnavailableError(SimpleNamespace(name="x", app_name="y")), "unavailable"),  # type: ignore[arg-type]
        (RayActorError(), "unavailable"),
    ],
    ids=["full", "not there", "died"],
)
def test_who_meets_a_part_that_is_full_or_gone_is_told_to_come_back(pair: Pair, error: Exception, reason: str) -> None:
    at = door(pair, retry_after_s=7)
    at.embed.answer = error
    response = at.post()
    assert refusal(response) == (503, reason)
    assert response.headers["retry-after"] == "7"


def test_a_slow_answer_is_given_up_and_its_work_cancelled(pair: Pair) -> None:
    at = door(pair, timeout_s=0.2)
    at.find.seconds = 5
    response = at.post()
    assert refusal(response) == (504, "timeout")
    assert "0.2 s" in response.json()["error"]["message"]
    assert [one.cancelled for one in at.find.responses] == [True]
    assert [one.cancelled for one in at.embed.responses] == [False]


def test_no_more_queries_than_places_and_each_gives_its_place_back(pair: Pair) -> None:
    at = door(pair, max_queue=2, retry_after_s=3)
    at.embed.seconds = 0.5
    headers = {"Content-Type": "image/jpeg"}

    async def crowd(client: httpx.AsyncClient) -> list[httpx.Response]:
        asked = [client.post("/search", content=b"photo", headers=headers) for _ in range(5)]
        first = list(await asyncio.gather(*asked))
        return [*first, await client.post("/search", content=b"photo", headers=headers)]

    *first, last = at.run(crowd)
    assert sorted(response.status_code for response in first) == [200, 200, 503, 503, 503]
    turned = next(response for response in first if response.status_code == 503)
    assert (refusal(turned), turned.headers["retry-after"]) == ((503, "busy"), "3")
    assert last.status_code == 200
    at.embed.seconds = 0
    for answer, status in ((ValueError(), 500), (Unusable(reason="no-face", detail=""), 422), (SEEN, 200)):
        at.embed.answer = answer
        assert [at.post().status_code for _ in range(4)] == [status] * 4  # no place is lost to a failure


# Thumbnails.


def test_a_thumbnail_is_the_stored_crop_of_its_row(pair: Pair, made: Workspace) -> None:
    at = door(pair)
    for row in (0, 19):
        response = at.ask("GET", f"/gallery/{row}")
        assert (response.status_code, response.headers["content-type"]) == (200, "image/jpeg")
        assert response.content == at.search._gallery.jpeg(row)
        assert response.headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize("row", ["20", "1" * 13, "-1", "+1", "1.0", "%201", "%D9%A1", "x", "1%0A"])
def test_rows_that_are_not_there(pair: Pair, row: str) -> None:
    response = door(pair).ask("GET", f"/gallery/{row}")
    assert refusal(response) == (404, "not-found")


def test_a_row_may_be_written_with_leading_zeros(pair: Pair) -> None:
    at = door(pair)
    assert at.ask("GET", "/gallery/00000000001").content == at.ask("GET", "/gallery/1").content


def test_a_thumbnail_that_a_browser_has_is_not_sent_again(pair: Pair) -> None:
    at = door(pair)
    first = at.ask("GET", "/gallery/3")
    seen = {"If-None-Match": first.headers["etag"]}
    again = at.ask("GET", "/gallery/3", headers=seen)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert again.headers["cache-control"] == "private, no-cache"
    assert at.ask("GET", "/gallery/4", headers=seen).status_code == 200  # another row is another image


def test_a_thumbnail_of_another_index_is_another_image(pair: Pair) -> None:
    """Row 3 shows somebody else once the index is rebuilt: what a browser kept of the old one must not be shown."""
    old = door(pair).ask("GET", "/gallery/3").headers["etag"]
    rebuilt = dataclasses.replace(pair, index_fingerprint="0" * 64)
    response = door(rebuilt).ask("GET", "/gallery/3", headers={"If-None-Match": old})
    assert response.status_code == 200
    assert response.headers["etag"] != old
    assert len(response.content) > 0


# What is loaded.


def test_info_is_asked_of_the_parts_once(pair: Pair) -> None:
    at = door(pair, max_k=12, max_expand=9, expand=2, alpha=1.0, max_queue=5, timeout_s=3, max_pixels=1000)
    info = at.ask("GET", "/info").json()
    assert (info["model"], info["index"]) == (MODEL.model_dump(), INDEX.model_dump())
    assert info["collection"] == pair.collection_fingerprint
    assert info["limits"] == {
        "max_body_bytes": 16 << 20,
        "max_pixels": 1000,
        "max_k": 12,
        "max_expand": 9,
        "max_queue": 5,
        "timeout_s": 3.0,
    }
    assert info["defaults"] == {"expand": 2, "alpha": 1.0}
    assert at.ask("GET", "/health").json() == {"status": "ok"}
    assert (len(at.model.asked), len(at.index.asked)) == (1, 1)


@pytest.mark.parametrize("part", ["model", "index"])
def test_a_service_of_which_a_part_is_missing_is_not_healthy(pair: Pair, part: str) -> None:
    at = door(pair, retry_after_s=4)
    method: Method = getattr(at, part)
    working, method.answer = method.answer, RayActorError()
    for path in ("/health", "/info"):
        response = at.ask("GET", path)
        assert (refusal(response), response.headers["retry-after"]) == ((503, "unavailable"), "4")
    method.answer = working
    assert at.ask("GET", "/health").status_code == 200


def test_a_service_that_is_still_starting_says_so(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    at = door(pair)
    at.index.seconds = 60
    timeout = asyncio.timeout
    monkeypatch.setattr(asyncio, "timeout", lambda seconds: timeout(0.1 if seconds == 5 else seconds))
    response = at.ask("GET", "/health")
    assert (refusal(response), response.headers["retry-after"]) == ((503, "unavailable"), "1")


def test_the_page_is_at_the_root(pair: Pair, made: Workspace) -> None:
    response = door(pair).ask("GET", "/")
    assert response.headers["content-type"].startswith("text/html")
    assert Path("serve/page/index.html").read_bytes() == response.content
