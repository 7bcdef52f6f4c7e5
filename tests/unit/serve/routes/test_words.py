"""POST /v1/search with words, over HTTP, by a pair of towers that was trained here; and a service that takes none."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.client import ApiError, Client
from serve.schemas import Filter
from tests.support.inside import inside
from tests.support.listening import Listening, listening
from tests.support.words import CONTEXT, NAMES, make_words_workspace
from tests.support.workspace import Workspace, make_workspace

ROOT, EACH = Path(__file__).resolve().parents[4], 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_words_workspace(tmp_path_factory.mktemp("words"), EACH)


@pytest.fixture(scope="module")
def at(made: Workspace) -> Iterator[Listening]:
    with listening(workspace=str(made.folder), engine="auto") as at:
        yield at


@pytest.fixture(scope="module")
def client(at: Listening) -> Iterator[Client]:
    with Client(at.address) as client:
        yield client


def ask(at: Listening, body: bytes | str) -> httpx.Response:
    return httpx.post(f"{at.address}/v1/search", content=body, headers={"content-type": "application/json"})


def test_words_find_the_photos_that_show_it(client: Client) -> None:
    assert client.info().features.text
    for name in NAMES:
        answer = client.search(text=name, k=EACH)
        assert {one.image_id.partition("/")[0] for one in answer.results} == {name}
        assert answer.query is None and answer.seconds.embed > 0


def test_the_lines_of_the_docs_are_answered(at: Listening) -> None:
    pages = sorted((ROOT / "docs/how-to/use").glob("*.md"))
    bodies = [body for page in pages for body in re.findall(r"""curl .*-d '(\{"text":.*?\})' """, page.read_text())]
    assert len(bodies) >= 2 and [ask(at, body).status_code for body in bodies] == [200] * len(bodies)


def test_the_same_options_hold_and_the_answer_promises_nothing(client: Client) -> None:
    answer = client.search(text="Blue Square", k=5, filter=Filter(folder=["red square", "blue circle"]), min_score=-0.5)
    assert {one.image_id.partition("/")[0] for one in answer.results} <= {"red square", "blue circle"}
    assert answer.searched == 2 * EACH and min(one.score for one in answer.results) >= -0.5
    assert answer.decision.answer == "cannot tell" and answer.decision.threshold is None
    assert "words" in answer.decision.why and {one.probability for one in answer.results} == {None}
    expanded = client.search(text="blue square", k=EACH, expand=2)
    assert expanded.expansion is not None and expanded.results[0].image_id.startswith("blue square/")


def test_a_photo_that_was_added_a_moment_ago_is_found_by_words(made: Workspace, client: Client) -> None:
    photo = made.photos["green triangle/0.jpg"].read_bytes()
    client.add([photo], label="new")
    added = [one.image_id for one in client.search(text="green triangle", k=EACH + 1).results if one.label == "new"]
    assert len(added) == 1
    client.delete(added[0])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"text": "red", "rerank": 5}, "rerank: words have no points to match"),
        ({"text": "red", "min_probability": 0.5}, "min_probability: what the scores of words mean was not measured"),
        ({"text": "red", "image_id": "red circle/0.jpg"}, "Give one of: a photo, image_id, image_ids, embedding, text"),
        (
            {"text": "red " * CONTEXT},
            f"text: the text has {CONTEXT + 2} tokens, and this model takes {CONTEXT}. Shorten",
        ),
        ({"text": "red\ncircle"}, "text: Value error, it has control characters"),
        ({"text": "red\x00"}, "it has control characters"),
        ({"text": " "}, "it says nothing"),
        ({"text": ""}, "text: String should have at least 1 character"),
        ({"text": "r" * 1001}, "text: String should have at most 1000 characters"),
        ({"text": "\ud800"}, "text: "),
        ({"text": ["red"]}, "text: Input should be a valid string"),
    ],
)
def test_what_cannot_be_asked_is_refused(at: Listening, options: dict[str, Any], says: str) -> None:
    refused = ask(at, json.dumps(options))
    assert refused.status_code == 422 and refused.json()["error"]["reason"] == "bad-parameter"
    assert says in refused.json()["error"]["message"]


def test_a_photo_with_words_beside_it_is_one_too_many(made: Workspace, client: Client) -> None:
    with pytest.raises(ApiError, match="Give one of"):
        client.search(made.photos["red circle/0.jpg"], text="red")


def test_many_texts_at_once_are_each_answered_as_if_alone(made: Workspace) -> None:

    async def all_of_it() -> None:
        async with inside(made, engine="auto", max_queue=len(NAMES)) as (_, client):
            asked = [client.post("/v1/search", json={"text": name, "k": 1}) for name in NAMES]
            for name, answer in zip(NAMES, await asyncio.gather(*asked), strict=True):
                assert answer.json()["results"][0]["image_id"].startswith(f"{name}/")

    asyncio.run(all_of_it())


def test_a_model_of_photos_alone_says_so(tmp_path: Path) -> None:
    made = make_workspace(tmp_path, num_identities=2)
    with listening(workspace=str(made.folder)) as at, Client(at.address) as client:
        assert not client.info().features.text
        refused = ask(at, b'{"text": "red circle"}')
    assert refused.status_code == 422
    assert refused.json()["error"]["message"].startswith("text: this model describes photos and no words.")
