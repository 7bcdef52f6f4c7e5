"""Settings of the query service."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from serve.edge import STATUS
from serve.schemas import ServeArgs


def test_values_arrive_as_text_from_the_command_line() -> None:
    args = ServeArgs.model_validate({"workspace": "w", "max_k": "50", "timeout_s": "2.5", "embedder_gpus": "0"})
    assert (args.max_k, args.timeout_s, args.embedder_gpus) == (50, 2.5, 0.0)


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"workspace": "w", "max_kk": 5},
        {"workspace": "w", "max_k": 0},
        {"workspace": "w", "max_queue": 0},
        {"workspace": "w", "max_body_bytes": 1 << 40},
        {"workspace": "w", "max_pixels": 10**12},
        {"workspace": "w", "timeout_s": 0},
        {"workspace": "w", "device": "tpu"},
        {"workspace": "w", "min_embedders": 3, "max_embedders": 2},
    ],
)
def test_bad_settings_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ServeArgs.model_validate(bad)


def test_every_setting_is_explained() -> None:
    assert [name for name, field in ServeArgs.model_fields.items() if not field.description] == []


def test_every_setting_and_every_reason_is_in_the_docs() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs/reference/http.md").read_text()
    assert [
        name for name in [*ServeArgs.model_fields, *STATUS] if f"`{name}`" not in page and f"{name}=" not in page
    ] == []
