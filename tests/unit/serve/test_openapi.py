"""The OpenAPI document: every operation has an example, is a method of the client, and answers as it says."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve.client import AsyncClient, Client
from tests.support.fuzzing import fuzz
from tests.support.listening import Listening, listening
from tests.support.workspace import Workspace, make_workspace
from tests.unit.serve.client.test_calls import CALLS

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "6"))
BEFORE_V1 = {"/search", "/gallery/{}", "/info", "/health"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("openapi"), num_identities=3)


@pytest.fixture(scope="module")
def at(made: Workspace) -> Iterator[Listening]:
    with listening(workspace=str(made.folder), max_body_bytes=200_000, max_batch_bytes=400_000) as at:
        yield at


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def _shape(path: str) -> str:
    """/v1/people/{person}/merge -> /v1/people/{}/merge"""
    parts = ["{}" if part.startswith("{") else part for part in path.split("/")]
    return "/".join(parts)


def _has_example(document: dict[str, Any], operation: dict[str, Any]) -> bool:
    """Bodies that are pixels or plain text need none."""
    bodies = [operation.get("requestBody", {}), *(operation["responses"].get(code, {}) for code in ("200", "201"))]
    kinds = [(kind, content) for body in bodies for kind, content in body.get("content", {}).items()]
    for kind, content in kinds:
        if kind in ("image/jpeg", "text/plain") or (kind == "application/octet-stream" and "schema" not in content):
            return True
        schema = content.get("schema", {})
        name = schema.get("$ref", "").rpartition("/")[2]
        if "examples" in document["components"]["schemas"].get(name, schema):
            return True
    return False


def test_every_operation_has_an_example_and_says_what_it_does(at: Listening) -> None:
    document = at.api.openapi()
    without = [f"{m} {path}" for m, path, operation in _operations(document) if not _has_example(document, operation)]
    assert without == []
    assert [f"{m} {path}" for m, path, operation in _operations(document) if not operation.get("description")] == []


def test_the_client_has_a_method_for_each_operation(at: Listening) -> None:
    ours = {(call.method, _shape(call.template)) for call in CALLS}
    there = {(method, _shape(path)) for method, path, _ in _operations(at.api.openapi())}
    assert {one for one in there if one[1] not in BEFORE_V1} - ours == set()
    assert ours - there == set()
    plain = {name for name in vars(Client) if not name.startswith("_")}
    assert plain == {name for name in vars(AsyncClient) if not name.startswith("_")}


def test_every_operation_answers_as_the_document_says(at: Listening, made: Workspace) -> None:
    photos = [path.read_bytes() for path in list(made.photos.values())[:3]]
    report = fuzz(at.address, EXAMPLES, photos)
    assert report.wrong == []
    assert report.num >= 100
    asked = {name for name, _ in report.statuses}
    assert asked == {f"{method} {path}" for method, path, _ in _operations(at.api.openapi())}
    answered = {name for name, status in report.statuses if status == 200}
    assert {"GET /v1/images", "GET /v1/people", "GET /v1/info", "GET /livez"} <= answered
    with Client(at.address) as client:
        assert client.readyz().status == "ok"
        found = client.search(next(iter(made.photos.values())), k=1).results[0]
    assert found.score > 0.99


def test_the_document_is_json_and_names_no_machine(at: Listening) -> None:
    text = json.dumps(at.api.openapi())
    assert str(Path.cwd()) not in text
    assert "bearer" in text.lower()
