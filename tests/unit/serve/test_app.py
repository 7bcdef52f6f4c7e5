"""The service is put together without loading what it does not need, and its deployments are sized as asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrieval.artifacts.published import Pair
from retrieval.search.settings import IndexConfig
from serve import app
from serve.parts.part import Part
from serve.replica import Search
from serve.settings import ServeArgs
from tests.support.workspace import make_workspace

ROOT = Path(__file__).resolve().parents[3]

LOADED = """
import json, sys
import serve.app
tops = {module.partition(".")[0] for module in sys.modules}
rooms = {module.split(".")[1] for module in sys.modules if module.startswith("retrieval.")}
print(json.dumps([sorted(tops), sorted(rooms)]))
"""


def test_the_service_loads_only_what_it_needs() -> None:
    command = [sys.executable, "-W", "ignore", "-c", LOADED]
    answer = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    tops, rooms = map(set, json.loads(answer.stdout))
    assert not tops & {"pycolmap", "matplotlib", "mlflow", "ray_jobs", "sklearn"}
    assert rooms <= {"artifacts", "images", "models", "search", "live", "data"}
    assert "faiss" in tops and "torch" not in tops, "only a GPU needs it"


class Deployed:
    """What `serve.deployment(...).options(...)` gives, as far as it goes: it keeps what it is bound to."""

    def __init__(self, kind: Any, options: dict[str, Any]) -> None:
        self.kind, self.options = kind, options
        self.bound: tuple[Any, ...] = ()

    def bind(self, *args: Any) -> Deployed:
        self.bound = args
        return self


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Deployed]:
    """Builds the service of a workspace with settings; the deployments by name."""
    made = make_workspace(tmp_path, num_identities=2, index=IndexConfig(num_shards=3))
    monkeypatch.setattr(app, "_deployment", lambda kind, **options: Deployed(kind, options))

    def build(**settings: Any) -> Deployed:
        search: Any = app.build_app(ServeArgs(workspace=str(made.folder), **settings))
        args, *parts = search.bound
        assert len(parts) == (args.index_parts if args.index_parts > 1 else 0)
        assert args.workspace == str(made.folder)
        assert issubclass(search.kind, Search)
        return search

    return build


def test_the_deployment_gets_what_was_asked_for(built: Callable[..., Deployed]) -> None:
    options = built(
        replica_cpus=0.5,
        replica_gpus=0.25,
        min_replicas=2,
        max_replicas=6,
        max_batch=8,
        max_queue=50,
        max_uploads=300,
        retry_after_s=9,
    ).options
    assert options["ray_actor_options"] == {"num_cpus": 0.5, "num_gpus": 0.25}
    assert options["autoscaling_config"] == {"min_replicas": 2, "max_replicas": 6, "target_ongoing_requests": 4}
    # More is taken in than is let through: slow senders, thumbnails, and those who are told that the queue is full.
    assert options["max_ongoing_requests"] > 350
    assert options["backpressure_config"] == {"status_code": 503, "retry_after_s": 9}


def test_an_index_in_parts_has_a_deployment_for_each_with_room_for_its_shards(built: Callable[..., Deployed]) -> None:
    search: Any = built(index_parts=2, replica_cpus=0.5)
    args, first, second = search.bound
    sizes = [size for name, size in Pair.open(args.workspace).index.list().items() if name.startswith("shard-")]
    for number, (part, room) in enumerate(((first, sizes[0] + sizes[2]), (second, sizes[1]))):
        assert part.kind is Part and part.bound == (args, number)
        assert (part.options["name"], part.options["num_replicas"]) == (f"Part{number + 1}", 1)
        assert part.options["ray_actor_options"] == {"num_cpus": 0.5, "num_gpus": 0, "memory": room}
    with pytest.raises(ValueError, match="3 shards cannot be spread over 4 parts"):
        built(index_parts=4)


def test_batches_of_one_still_scale(built: Callable[..., Deployed]) -> None:
    assert built(max_batch=1).options["autoscaling_config"]["target_ongoing_requests"] == 1


def test_an_unfinished_workspace_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pipeline has finished there"):
        app.build_app(ServeArgs(workspace=str(tmp_path)))


@pytest.mark.parametrize(
    ("settings", "here", "reserved"),
    [
        ({}, 0, 0.0),
        ({}, 1, 1.0),
        ({}, 8, 1.0),
        ({"device": "cpu"}, 1, 0.0),
        ({"device": "cuda"}, 1, 1.0),
        ({"replica_gpus": 0.0}, 1, 0.0),
        ({"replica_gpus": 0.5}, 0, 0.5),
    ],
)
def test_a_gpu_is_reserved_where_there_is_one(
    built: Callable[..., Deployed],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    here: int,
    reserved: float,
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # the whole suite has one running
    monkeypatch.setattr("torch.cuda.device_count", lambda: here)
    assert built(**settings).options["ray_actor_options"]["num_gpus"] == reserved


def test_on_a_cluster_the_cluster_s_gpus_count(built: Callable[..., Deployed], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0, "GPU": 4.0})
    assert built().options["ray_actor_options"]["num_gpus"] == 1.0
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0})
    assert built().options["ray_actor_options"]["num_gpus"] == 0.0


def test_a_deployment_is_replaced_before_it_is_stopped() -> None:
    made = app._deployment(Search, num_replicas=2, max_ongoing_requests=7)
    assert (made.num_replicas, made.max_ongoing_requests) == (2, 7)
    assert made.name == "Search"
