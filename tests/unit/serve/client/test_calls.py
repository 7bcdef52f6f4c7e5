"""Every operation as a request: its address, its parameters, its body; and that nothing heavy is loaded for it."""

import inspect
import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from serve.client import calls
from serve.client.calls import Call
from serve.client.photos import NamedPhoto
from serve.forms import parts_of
from serve.schemas import AddItem, Filter, SearchOptions

CALLS: list[Call[Any]] = [
    calls.search(b"photo", SearchOptions()),
    calls.search_batch([b"a", b"b"], SearchOptions(k=3)),
    calls.verify(b"a", b"b", 0.01),
    calls.faces(b"a"),
    calls.add([NamedPhoto("x/1.jpg", b"a")], None, "ada", {"replace": True}),
    calls.images("a", 10, Filter(label=["ada"])),
    calls.image("a/b c#1.jpg"),
    calls.thumbnail("a/b", 64),
    calls.original("a/b"),
    calls.delete("a/b"),
    calls.delete_label("ada"),
    calls.people(None, None),
    calls.person(3, None, 5),
    calls.merge(3, 4),
    calls.name(3, "Ada"),
    calls.split(3, ["a/b"]),
    calls.duplicates(None, None),
    calls.info(),
    calls.livez(),
    calls.readyz(),
    calls.metrics(),
    calls.reload("previous"),
    calls.snapshot(),
]


def _request(call: Call[Any]) -> httpx.Request:
    with httpx.Client(base_url="http://here/prefix") as client:
        return client.build_request(call.method, call.path, **call.arguments({}))


def test_every_operation_is_here() -> None:
    made = {call.template for call in CALLS}
    functions = [
        one
        for name, one in vars(calls).items()
        if inspect.isfunction(one) and one.__module__ == calls.__name__ and not name.startswith("_")
    ]
    assert len(functions) == len(CALLS)
    assert len(made) == len(CALLS) - 3  # images are read, added and deleted at one address, an image read and deleted


def test_an_id_is_one_piece_of_an_address() -> None:
    request = _request(calls.image("a/b c#1?.jpg"))
    assert request.url.raw_path == b"/prefix/v1/images/a%2Fb%20c%231%3F.jpg"
    assert _request(calls.image("..")).url.raw_path != b"/prefix/v1/images/"


def test_a_photo_alone_is_the_body() -> None:
    request = _request(calls.search(b"photo", SearchOptions()))
    assert request.read() == b"photo"
    assert request.headers["content-type"] == "application/octet-stream"


def test_a_photo_with_options_is_a_form_and_says_only_what_was_said() -> None:
    request = _request(calls.search(b"photo", SearchOptions(k=3, filter=Filter(label=["ada"]))))
    parts = {part.name: part for part in parts_of(request.read(), request.headers["content-type"])}
    assert parts["photo"].data == b"photo"
    assert json.loads(parts["options"].data) == {"k": 3, "filter": {"label": ["ada"]}}


def test_without_a_photo_the_options_are_the_body() -> None:
    request = _request(calls.search(None, SearchOptions(image_id="a/b", k=2)))
    assert json.loads(request.read()) == {"image_id": "a/b", "k": 2}
    assert request.headers["content-type"] == "application/json"


def test_many_photos_go_under_their_names() -> None:
    request = _request(
        calls.add([NamedPhoto("x/1.jpg", b"a"), b"b"], [AddItem(label="ada")] * 2, None, {"replace": True})
    )
    photos = [part for part in parts_of(request.read(), request.headers["content-type"]) if part.name == "photo"]
    assert [(part.filename, part.data) for part in photos] == [("x/1.jpg", b"a"), ("1", b"b")]
    assert request.url.params["replace"] == "true"
    assert "faces" not in _request(calls.add([b"a"], None, None, {"faces": None})).url.params
    request = _request(calls.add([b"a", b"b"], None, "ada", {}))
    parts = {part.name: part for part in parts_of(request.read(), request.headers["content-type"])}
    assert json.loads(parts["options"].data) == {"items": [{"label": "ada"}, {"label": "ada"}]}
    with pytest.raises(ValueError, match="both given"):
        calls.add([b"a"], [AddItem()], "ada", {})


def test_a_filter_in_an_address_is_one_that_the_service_reads() -> None:
    sent = Filter(label=["ada"], added_after=datetime(2026, 3, 1, tzinfo=UTC))
    request = _request(calls.images(None, None, sent))
    assert Filter.model_validate_json(request.url.params["filter"]) == sent
    assert set(request.url.params) == {"filter"}


def test_a_name_that_is_taken_away_is_said() -> None:
    assert json.loads(_request(calls.name(3, None)).read()) == {"name": None}


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.method} {call.template}")
def test_what_changes_something_is_not_done_twice_by_itself(call: Call[Any]) -> None:
    safe = {"/v1/search", "/v1/search/batch", "/v1/verify", "/v1/faces", "/v1/images"}
    assert call.again == (call.method == "GET" or (call.method == "POST" and call.template in safe))


def test_the_client_is_light() -> None:
    heavy = ("torch", "ray", "numpy", "pyarrow", "cv2", "fastapi")
    code = f"import sys, serve.client; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
