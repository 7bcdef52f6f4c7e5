"""The bodies of the API: each explains itself, has an example that holds, and refuses what it does not know."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import serve.schemas
from serve.schemas import Filter, NameRequest, RequestBody, SearchOptions

BODIES = {
    name: body for name, body in vars(serve.schemas).items() if isinstance(body, type) and issubclass(body, BaseModel)
}
OPERATIONS = [name for name, body in BODIES.items() if "json_schema_extra" in body.model_config]


def _examples(body: type[BaseModel]) -> list[dict[str, Any]]:
    extra = body.model_config.get("json_schema_extra")
    assert isinstance(extra, dict)
    found: Any = extra["examples"]
    return found


@pytest.mark.parametrize("name", BODIES)
def test_every_field_is_explained(name: str) -> None:
    assert [field for field, info in BODIES[name].model_fields.items() if not info.description] == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_example_is_what_it_is_an_example_of(name: str) -> None:
    for one in _examples(BODIES[name]):
        told = BODIES[name].model_validate(one).model_dump(mode="json")
        assert {key: told[key] for key in one if not isinstance(one[key], dict | list)} == {
            key: value for key, value in one.items() if not isinstance(value, dict | list)
        }


def test_what_programs_send_and_get_has_an_example() -> None:
    whole = {n for n, body in BODIES.items() if (body.__doc__ or "").startswith(("POST", "GET", "DELETE"))}
    assert len(whole) >= 15
    assert whole <= set(OPERATIONS)


@pytest.mark.parametrize("name", [n for n, b in BODIES.items() if issubclass(b, RequestBody) and b is not RequestBody])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="extra"):
        BODIES[name].model_validate({**_examples(BODIES[name])[0], "kk": 1})


@pytest.mark.parametrize(
    "bad",
    [
        {"k": 0},
        {"k": 10_001},
        {"min_score": 1.5},
        {"min_score": float("nan")},
        {"min_probability": -0.1},
        {"far": 0},
        {"far": 1},
        {"rerank": -1},
        {"rerank": 1001},
        {"alpha": 20.1},
        {"expand": -1},
        {"face": -1},
        {"face": "worst"},
        {"box": [1, 2, 3]},
        {"image_id": ""},
        {"image_id": "x" * 1025},
        {"image_ids": []},
        {"image_ids": [{"image_id": "a"}] * 33},
        {"image_ids": [{"image_id": "a", "weight": 101}]},
        {"embedding": []},
        {"embedding": [float("inf")]},
        {"embedding": [0.0] * 8193},
        {"filter": {"label": []}},
        {"filter": {"attributes": {"hat": 2}}},
        {"filter": {"added_after": "2026-03-01T00:00:00"}},
        {"filter": {"folder": ["a"] * 1001}},
    ],
)
def test_bad_options_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SearchOptions.model_validate(bad)


def test_the_ends_of_the_ranges_are_taken() -> None:
    told: dict[str, Any] = {"k": 10_000, "rerank": 1000, "alpha": 20, "face": "all", "min_score": -1}
    told |= {"min_probability": 1, "image_ids": [{"image_id": "a", "weight": -100}] * 32, "embedding": [0.0] * 8192}
    options = SearchOptions.model_validate(told)
    assert options.num_queries == 2
    assert options.face == "all"
    assert SearchOptions.model_validate({"face": 3}).face == 3


def test_a_filter_s_times_keep_their_zone() -> None:
    since = Filter.model_validate({"added_after": "2026-03-01T02:00:00+02:00"}).added_after
    assert since == datetime(2026, 3, 1, tzinfo=UTC)


def test_a_name_is_trimmed_and_may_be_taken_away() -> None:
    assert NameRequest.model_validate({"name": "  Ada "}).name == "Ada"
    assert NameRequest.model_validate({"name": None}).name is None
    for bad in ({}, {"name": " "}, {"name": "x" * 201}):
        with pytest.raises(ValidationError):
            NameRequest.model_validate(bad)
