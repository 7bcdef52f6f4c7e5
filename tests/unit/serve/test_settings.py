"""Settings of the query service."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from retrieval.images.settings import MAX_PIXELS_LIMIT
from serve.edge import STATUS
from serve.schemas import MAX_ALPHA
from serve.settings import MIB, ServeArgs


def test_values_arrive_as_text_from_the_command_line() -> None:
    args = ServeArgs.model_validate({"workspace": "w", "max_k": "50", "timeout_s": "2.5", "replica_gpus": "0"})
    assert (args.max_k, args.timeout_s, args.replica_gpus) == (50, 2.5, 0.0)


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
        {"workspace": "w", "min_replicas": 3, "max_replicas": 2},
        {"workspace": "w", "min_replicas": 5},
        {"workspace": "w", "expand": 101},
        {"workspace": "w", "expand": 1, "max_expand": 0},
        {"workspace": "w", "expand": -1},
        {"workspace": "w", "max_expand": 1001},
        {"workspace": "w", "alpha": -0.1},
        {"workspace": "w", "alpha": 20.1},
        {"workspace": "w", "max_k": 10_001},
        {"workspace": "w", "max_body_bytes": 1023},
        {"workspace": "w", "max_pixels": 255},
        {"workspace": "w", "timeout_s": 601},
        {"workspace": "w", "retry_after_s": 0},
        {"workspace": "w", "max_batch": 0},
        {"workspace": "w", "replica_cpus": 0},
        {"workspace": "w", "replica_gpus": -1},
        {"workspace": "w", "photo_processes": 0},
        {"workspace": "w", "formats": []},
        {"workspace": "w", "formats": ["SVG"]},
        {"workspace": "w", "photo_timeout_s": 0},
        {"workspace": "w", "max_uploads": 0},
        {"workspace": "w", "min_upload_rate": -1},
        {"workspace": "w", "precision": "fp16"},
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


@pytest.mark.parametrize(
    "fine",
    [
        {"max_body_bytes": 256 * MIB, "max_pixels": 256, "max_k": 10_000, "max_expand": 1000},
        {"expand": 100},
        {"max_expand": 0, "alpha": MAX_ALPHA},
        {"min_replicas": 4, "max_replicas": 4},
        {"timeout_s": 600, "retry_after_s": 3600, "max_queue": 1, "max_body_bytes": 1024},
    ],
)
def test_the_ends_of_the_ranges_are_taken(fine: dict[str, object]) -> None:
    args = ServeArgs.model_validate({"workspace": "w", **fine})
    assert {name: getattr(args, name) for name in fine} == fine


def test_settings_cannot_be_changed_afterwards() -> None:
    args = ServeArgs(workspace="w")
    with pytest.raises(ValidationError, match="frozen"):
        args.max_k = 5


def test_a_stranger_s_photo_is_never_larger_than_ingest_takes() -> None:
    assert ServeArgs(workspace="w").max_pixels <= MAX_PIXELS_LIMIT
    ServeArgs(workspace="w", max_pixels=MAX_PIXELS_LIMIT)
    with pytest.raises(ValidationError):
        ServeArgs(workspace="w", max_pixels=MAX_PIXELS_LIMIT + 1)


def test_a_replica_has_as_many_threads_and_processes_as_cpus_unless_told() -> None:
    for cpus, many, threads, processes in ((0.5, None, 1, 1), (3.9, None, 3, 3), (1, 4, 1, 4)):
        args = ServeArgs(workspace="w", replica_cpus=cpus, photo_processes=many)
        assert (args.threads, args.num_photo_processes) == (threads, processes)
