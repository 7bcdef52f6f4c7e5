"""A frozen network gets an adapter on a real local Ray, and its gallery is embedded with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ray_jobs import adapt, embed, freeze, ingest
from ray_jobs.adapt import AdaptJobConfig
from ray_jobs.embed import EmbedConfig
from ray_jobs.freeze import FreezeConfig
from ray_jobs.ingest import IngestConfig
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.data.demo.faces import draw_collection
from retrieval.data.settings import SplitConfig
from retrieval.images.settings import PrepareConfig
from retrieval.models.settings import ModelConfig
from retrieval.training.adapters.settings import AdaptConfig
from tests.support.frozen import DIM, tiny, write

pytestmark = pytest.mark.usefixtures("ray_local")


def test_a_frozen_network_is_adapted_and_told_of_in_mlflow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "net", tiny())
    draw_collection(tmp_path / "drawn", num_identities=12, images_per_identity=4, seed=1, size=(60, 72))
    photos, model, vectors, adapted = (str(tmp_path / name) for name in ("photos", "model", "vectors", "adapted"))
    split = SplitConfig(test_fraction=0.25, val_fraction=0.5)
    prepare = PrepareConfig(size=32, crop="none")
    ingest.main(IngestConfig(source=str(tmp_path / "drawn"), out=photos, prepare=prepare, split=split))
    freeze.main(FreezeConfig(collection=photos, out=model, model=ModelConfig(backbone=f"onnx:{tmp_path / 'net'}")))
    embed.main(EmbedConfig(collection=photos, model=model, out=vectors))
    given: dict[str, Any] = {"collection": photos, "embeddings": vectors, "model": model, "out": adapted}
    config = AdaptConfig(epochs=2, least_gain=0.0, candidates=("whitening", "linear"))
    adapt.logged(AdaptJobConfig(**given, adapt=config, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"))
    said = capsys.readouterr().out
    manifest = read_manifest(Folder.of(adapted), "model")
    assert manifest.counts["adapter"] in ("identity", "whitening", "linear") and manifest.counts["embedding_dim"] == DIM
    assert "identity" in said and adapt.verdict(manifest, Folder.of(adapted)) in said
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("adapters")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["adapt.adapt.epochs"] == "2"
    figures = Folder.of(adapted).read_json("adapters.json")["systems"]
    assert run.data.metrics["val/linear/mAP"] == pytest.approx(figures["linear"]["mAP"])
    assert {item.path for item in client.list_artifacts(run.info.run_id, "adapters")} == {
        "adapters/adapters.json",
        "adapters/adapters.png",
    }
    again = embed.main(EmbedConfig(collection=photos, model=adapted, out=str(tmp_path / "again")))
    assert again.counts["num"] == read_manifest(Folder.of(photos)).counts["stored"]
