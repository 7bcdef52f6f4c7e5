"""A training whose MLflow server is killed in the middle loses no epoch, no figure and no point of a curve.

With a real server on loopback: a database, and artifacts that go through it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from ray_jobs import train
from ray_jobs.runtime.tracking.outbox import Outbox
from ray_jobs.runtime.tracking.registry import fetch_bundle
from ray_jobs.runtime.tracking.runs import WAIT, open_run
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import hash_file
from retrieval.artifacts.manifest import read_manifest
from retrieval.data.demo.faces import draw_collection
from retrieval.images.settings import PrepareConfig
from retrieval.models.settings import ModelConfig
from retrieval.training.settings import TrainConfig
from tests.support.mlflow_server import MlflowServer
from tests.support.workspace import make_collection

pytestmark = pytest.mark.usefixtures("ray_local")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    made = MlflowServer(tmp_path_factory.mktemp("server"))
    made.start()
    yield made
    made.kill()


def job(root: Path) -> train.TrainJobConfig:
    draw_collection(root / "drawn", num_identities=12, images_per_identity=5, seed=2)
    make_collection(Folder.of(root / "collection"), root / "drawn", PrepareConfig(crop="none", size=64))
    return train.TrainJobConfig(
        collection=str(root / "collection"),
        out=str(root / "model"),
        weights="none",
        model=ModelConfig(backbone="resnet18", cut="layer3", image_size=64, embedding_dim=32),
        train=TrainConfig(epochs=3, groups_per_batch=1, unfreeze_layers=-1, views=0, precision="fp32", seed=3),
        cache=str(root / "cache"),
        cpus_per_worker=1,
        device="cpu",
    )


def test_a_server_that_is_killed_and_comes_back_is_told_everything_once(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, cfg = Folder.of(tmp_path), job(tmp_path)
    earlier = open_run(server.uri, experiment="outage", key="earlier", workspace=workspace)
    tracker = open_run(server.uri, experiment="outage", key="this", workspace=workspace)

    killed: list[int] = []

    def kill_in_the_middle() -> None:
        """Once the first epoch is in MLflow."""
        client = MlflowClient(server.uri)
        while not client.get_metric_history(tracker.run_id, "val/mAP"):
            time.sleep(0.05)
        server.kill()
        killed.append(len(list(tmp_path.glob("model-checkpoints/train-*/checkpoint_*/state.pt"))))

    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    trained = train.main(cfg, tracker)
    killer.join()
    assert killed[0] >= 1, "the checkpoint comes first, then the figures"
    history: list[dict[str, Any]] = Folder.of(cfg.out).read_json("history.json")
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]

    offer = {"name": "faces", "metric": "val/mAP", "measured_on": trained.inputs["collection"]}
    said = tracker.register_bundle(Folder.of(cfg.out), value=trained.counts["best_val_mAP"], **offer)
    assert (said.version, said.is_champion) == ("", False) and "MLflow is away" in said.reason
    monkeypatch.setenv(WAIT, "0")
    earlier.log_metrics({"late": 4.0}, step=4)
    earlier.finish()  # does not wait: its news stays for the next run
    waiting = len(Outbox.of(workspace).waiting())
    assert waiting >= 4, "epochs, a bundle, a figure and an end"

    monkeypatch.setenv(WAIT, "300")
    threading.Timer(1.0, server.start).start()
    tracker.finish()  # waits for the server, and tells it what both runs had to say
    assert Outbox.of(workspace).waiting() == []
    client = MlflowClient(server.uri)
    points = client.get_metric_history(tracker.run_id, "val/mAP")
    assert sorted((point.step, point.value) for point in points) == [(row["epoch"], row["val/mAP"]) for row in history]
    assert client.get_run(tracker.run_id).info.status == client.get_run(earlier.run_id).info.status == "FINISHED"
    assert client.get_run(earlier.run_id).data.metrics == {"late": 4.0}

    got = Folder.of(fetch_bundle("models:/faces@champion", tmp_path / "fetched", uri=server.uri))
    assert {name: hash_file(got, name) for name in trained.files} == trained.files
    assert read_manifest(got) == trained
    assert list((server.folder / "artifacts").rglob("model.safetensors")), "it went through the server"
