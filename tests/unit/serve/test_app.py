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
from serve import app
from serve.embedder import Embedder
from serve.index_shard import IndexShard
from serve.ingress import Search
from serve.schemas import ServeArgs
from tests.support.workspace import make_workspace

ROOT = Path(__file__).resolve().parents[3]

LOADED = """
import importlib, json, sys
told = {}
for name in ("serve.ingress", "serve.index_shard", "serve.app"):
    importlib.import_module(name)
    tops = {module.partition(".")[0] for module in sys.modules}
    rooms = {module.split(".")[1] for module in sys.modules if module.startswith("retrieval.")}
    told[name] = sorted(tops), sorted(rooms)
print(json.dumps(told))
"""


def test_the_service_loads_only_what_it_needs() -> None:
    """Each replica imports the module of its class: the door neither PyTorch nor FAISS, the index no PyTorch."""
    command = [sys.executable, "-W", "ignore", "-c", LOADED]
    answer = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    told = {name: (set(tops), set(rooms)) for name, (tops, rooms) in json.loads(answer.stdout).items()}
    never = {"pycolmap", "matplotlib", "mlflow", "ray_jobs", "tyro", "sklearn"}
    for name, (tops, rooms) in told.items():
        assert not tops & never, name
        assert rooms <= {"artifacts", "images", "models", "search"}, name
    assert not told["serve.ingress"][0] & {"torch", "faiss", "cv2"}
    assert not told["serve.index_shard"][0] & {"torch", "cv2"}
    assert {"faiss", "cv2"} <= set(told["serve.app"][0]) and "torch" not in told["serve.app"][0], "only a GPU needs it"


class Deployed:
    """What `serve.deployment(...).options(...)` gives, as far as it goes: it keeps what it is bound to."""

    def __init__(self, kind: Any, options: dict[str, Any]) -> None:
        self.kind, self.options = kind, options
        self.bound: tuple[Any, ...] = ()

    def bind(self, *args: Any) -> Deployed:
        self.bound = args
        return self


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Deployed]]:
    """Builds the service of a workspace with settings; the deployments by name."""
    made = make_workspace(tmp_path, num_identities=2)
    monkeypatch.setattr(app, "_deployment", lambda kind, **options: Deployed(kind, options))

    def build(**settings: Any) -> dict[str, Deployed]:
        search: Any = app.build_app(ServeArgs(workspace=str(made.folder), **settings))
        args, pair, embedder, index = search.bound
        assert pair == Pair.open(str(made.folder))
        assert embedder.bound == (args, pair) and index.bound[0] == pair
        assert embedder.kind is Embedder and index.kind is IndexShard and issubclass(search.kind, Search)
        return {"search": search, "embedder": embedder, "index": index}

    return build


def test_each_deployment_gets_what_was_asked_for(built: Callable[..., dict[str, Deployed]]) -> None:
    parts = built(
        embedder_cpus=0.5,
        embedder_gpus=0.25,
        min_embedders=2,
        max_embedders=6,
        max_batch=8,
        max_queue=50,
        index_replicas=3,
        retry_after_s=9,
    )
    embedder, index, search = (parts[name].options for name in ("embedder", "index", "search"))
    assert embedder["ray_actor_options"] == {"num_cpus": 0.5, "num_gpus": 0.25}
    assert embedder["autoscaling_config"] == {"min_replicas": 2, "max_replicas": 6, "target_ongoing_requests": 4}
    assert (embedder["max_ongoing_requests"], embedder["max_queued_requests"]) == (16, 50)
    assert (index["num_replicas"], index["max_queued_requests"]) == (3, 50)
    # The door takes more in than it lets through: thumbnails, and those who are told that the queue is full.
    assert search["max_ongoing_requests"] > 50
    assert search["backpressure_config"] == {"status_code": 503, "retry_after_s": 9}


def test_only_a_server_that_expands_by_default_needs_an_index_that_can(
    built: Callable[..., dict[str, Deployed]],
) -> None:
    assert built()["index"].bound[1] is False
    assert built(expand=1)["index"].bound[1] is True


def test_batches_of_one_still_scale(built: Callable[..., dict[str, Deployed]]) -> None:
    assert built(max_batch=1)["embedder"].options["autoscaling_config"]["target_ongoing_requests"] == 1


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
        ({"embedder_gpus": 0.0}, 1, 0.0),
        ({"embedder_gpus": 0.5}, 0, 0.5),
    ],
)
def test_a_gpu_is_reserved_where_there_is_one(
    built: Callable[..., dict[str, Deployed]],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    here: int,
    reserved: float,
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # the whole suite has one running
    monkeypatch.setattr("torch.cuda.device_count", lambda: here)
    assert built(**settings)["embedder"].options["ray_actor_options"]["num_gpus"] == reserved


def test_on_a_cluster_the_cluster_s_gpus_count(
    built: Callable[..., dict[str, Deployed]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0, "GPU": 4.0})
    assert built()["embedder"].options["ray_actor_options"]["num_gpus"] == 1.0
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0})
    assert built()["embedder"].options["ray_actor_options"]["num_gpus"] == 0.0


def test_a_deployment_is_replaced_before_it_is_stopped() -> None:
    made = app._deployment(IndexShard, num_replicas=2, max_ongoing_requests=7)
    assert (made.num_replicas, made.max_ongoing_requests) == (2, 7)
    assert made.name == "IndexShard"
