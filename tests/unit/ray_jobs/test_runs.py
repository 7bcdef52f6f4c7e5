"""MLflow against a real SQLite store: one run per work, curves without doubles, and who is champion."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal

import pytest
from mlflow import MlflowClient

from ray_jobs.runtime.tracking.registry import fetch_bundle, promote
from ray_jobs.runtime.tracking.runs import open_run
from ray_jobs.runtime.tracking.store import store_uri
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import begin, read_manifest, seal
from retrieval.models import bundle as models_bundle
from retrieval.models.settings import ModelConfig
from tests.support.frozen import tiny, write


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Making the tables takes seconds, so the module's tests share one store and use names of their own."""
    return store_uri(None, tmp_path_factory.mktemp("workspace with space"))


def bundle(folder: Path, weights: bytes) -> Folder:
    """A sealed folder of kind model; tracking does not look inside its files."""
    where, config = Folder.of(folder), {"weights": weights.hex()}
    assert begin(where, kind="model", config=config, inputs={}) is None
    where.write_bytes("model.safetensors", weights)
    where.write_json("model.json", {"backbone": "resnet18"})
    seal(where, kind="model", config=config, inputs={}, counts={})
    return where


def test_a_resumed_run_is_the_same_run_with_no_point_twice(store: str, caplog: pytest.LogCaptureFixture) -> None:
    first = open_run(store, experiment="resume", key="abc", name="smoke")
    first.log_params({"epochs": 3, "loss": {"margin": 0.2}, "num_workers": 1}, prefix="train")
    first.log_metrics({"train/loss": 1.0, "val": {"recall@1": 0.25}, "note": "text"}, step=1)
    first.finish("FAILED")

    again = open_run(store, experiment="resume", key="abc", name="smoke")
    assert again == first
    again.log_params({"epochs": 3, "loss": {"margin": 0.2}, "num_workers": 2}, prefix="train")
    again.log_metrics({"train/loss": 1.0, "val": {"recall@1": 0.25}}, step=1)
    again.log_metrics({"train/loss": 0.5}, step=2)
    again.finish()

    client = MlflowClient(store)
    run = client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"train.epochs": "3", "train.loss.margin": "0.2", "train.num_workers": "1"}
    assert "keeps train.num_workers=1; now 2" in caplog.text
    assert [(m.step, m.value) for m in client.get_metric_history(first.run_id, "train/loss")] == [(1, 1.0), (2, 0.5)]
    assert [(m.step, m.value) for m in client.get_metric_history(first.run_id, "val/recall_at_1")] == [(1, 0.25)]
    assert open_run(store, experiment="resume", key="other").run_id != first.run_id


def test_artifacts_and_fingerprints_of_inputs(store: str, tmp_path: Path) -> None:
    tracker = open_run(store, experiment="files", key="k")
    model = bundle(tmp_path / "model", b"1")
    report = Folder.of(tmp_path / "report")
    report.write_bytes("sheets/after.png", b"png")
    report.write_bytes("report.html", b"<p>")
    tracker.log_folder(report, to="report")
    tracker.log_inputs({"model": model})
    client = MlflowClient(store)
    assert {f.path for f in client.list_artifacts(tracker.run_id, "report")} == {"report/report.html", "report/sheets"}
    assert [f.path for f in client.list_artifacts(tracker.run_id, "report/sheets")] == ["report/sheets/after.png"]
    assert len(client.get_run(tracker.run_id).data.tags["model.fingerprint"]) == 64


def test_only_a_better_bundle_takes_champion(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a stray store in the working folder would be a client that forgot its URI
    tracker = open_run(store, experiment="champion", key="k")

    def offer(weights: bytes, value: float, measured_on: str = "data-1") -> tuple[str, bool]:
        made = bundle(tmp_path / f"model-{weights.decode()}", weights)
        done = tracker.register_bundle(made, name="faces", metric="val/mAP", value=value, measured_on=measured_on)
        return done.version, done.is_champion

    assert offer(b"a", 0.5) == ("1", True)
    assert offer(b"b", 0.4) == ("2", False)  # worse
    assert offer(b"c", 0.5) == ("3", False)  # a tie is not better
    assert offer(b"d", 0.6) == ("4", True)
    assert offer(b"e", 0.9, measured_on="data-2") == ("5", False)  # other validation data: not comparable
    with pytest.raises(ValueError, match="give a finite number"):
        offer(b"f", float("nan"))

    got = fetch_bundle("models:/faces@champion", tmp_path / "cache", uri=store)
    assert (got / "model.safetensors").read_bytes() == b"d"
    assert (fetch_bundle("models:/faces/2", tmp_path / "cache", uri=store) / "model.safetensors").read_bytes() == b"b"
    promote(store, "faces", "5")
    got = fetch_bundle("models:/faces@champion", tmp_path / "cache", uri=store)
    assert (got / "model.safetensors").read_bytes() == b"e"
    assert not (tmp_path / "mlflow.db").exists() and not (tmp_path / "mlruns").exists()


def test_registering_the_same_bundle_again_keeps_its_version(store: str, tmp_path: Path) -> None:
    tracker = open_run(store, experiment="again", key="k")
    made = bundle(tmp_path / "model", b"same")
    offer = {"name": "again", "metric": "val/mAP", "value": 0.5, "measured_on": "data"}
    first, second = tracker.register_bundle(made, **offer), tracker.register_bundle(made, **offer)
    assert (first.version, first.is_champion) == (second.version, second.is_champion) == ("1", True)
    assert "already" in second.reason


def test_fetching_what_is_not_there_or_was_changed_says_so(store: str, tmp_path: Path) -> None:
    tracker = open_run(store, experiment="fetch", key="k")
    for uri in ("models:/nobody@champion", "models:/nobody/3"):
        with pytest.raises(ValueError, match="nobody"):
            fetch_bundle(uri, tmp_path, uri=store)
    with pytest.raises(ValueError, match=r"models:/<name>@champion"):
        fetch_bundle("faces", tmp_path, uri=store)

    made = bundle(tmp_path / "model", b"good")
    tracker.register_bundle(made, name="damaged", metric="val/mAP", value=0.5, measured_on="data")
    artifacts = Path(MlflowClient(store).get_run(tracker.run_id).info.artifact_uri or "")
    next(artifacts.glob("bundle/*/model.safetensors")).write_bytes(b"evil")
    with pytest.raises(ValueError, match=r"not the bundle that was registered \(model.safetensors\)"):
        fetch_bundle("models:/damaged/1", tmp_path / "cache", uri=store)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_store_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"cannot be used.*--tracking-uri"):
        open_run(store_uri(None, tmp_path / "file"), experiment="x", key="k")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ValueError, match=f"127.0.0.1:{port} cannot be used.*Start the server"):
        open_run(f"http://127.0.0.1:{port}", experiment="x", key="k")


def test_artifacts_that_cannot_be_stored_are_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "mlflow-artifacts").write_text("a file where the folder should be")
    with pytest.raises(ValueError, match="cannot be used"):
        open_run(store_uri(None, tmp_path), experiment="x", key="k")


def test_more_settings_than_mlflow_takes_at_once_are_all_logged(store: str) -> None:
    tracker = open_run(store, experiment="many", key="many")
    tracker.log_params({f"setting_{number}": number for number in range(250)}, prefix="many")
    params = MlflowClient(store).get_run(tracker.run_id).data.params
    assert {int(value) for name, value in params.items() if name.startswith("many.")} == set(range(250))


def results(where: Path, best: float | Literal["as it is"] | None) -> dict[str, Folder]:
    """What a pipeline hands on, as sealed folders. Args: best: val/mAP, if there was any; or it was not trained."""
    folders = {kind: Folder.of(where / kind) for kind in ("collection", "model", "index", "report")}
    for kind, folder in folders.items():
        assert begin(folder, kind=kind, config={"at": str(where)}, inputs={}) is None
        if kind == "report":
            figures = {"recall@1": 0.5, "nested": {"10": 0.25}, "curve": "text", "exact": True}
            systems = {"before": figures, "after + ms": {"mAP": 0.75}}
            folder.write_json("metrics.json", {"order": list(systems), "systems": systems})
            folder.write_json("timings.json", {"systems": {"before": {"query_seconds@10": 0.1}}})
        counts = {"best_val_mAP": best, "num": 3, "list": list(range(4000))}
        if best == "as it is":
            del counts["best_val_mAP"]
        seal(folder, kind=kind, config={"at": str(where)}, inputs={}, counts=counts)
    return folders


def test_results_of_a_pipeline_are_logged_and_its_model_is_registered(store: str, tmp_path: Path) -> None:
    tracker, folders = open_run(store, experiment="results", key="k"), results(tmp_path, 0.625)
    done = tracker.log_results(folders, model_name="results")
    assert done is not None and (done.name, done.version, done.is_champion) == ("results", "1", True)
    run = MlflowClient(store).get_run(tracker.run_id)
    wanted = {"test/before/recall_at_1": 0.5, "test/before/nested/10": 0.25, "test/after_ms/mAP": 0.75}
    wanted["test/before/query_seconds_at_10"] = 0.1
    assert run.data.metrics == wanted, "texts and truths are no figures"
    version = MlflowClient(store).get_model_version("results", "1")
    collection = read_manifest(folders["collection"]).fingerprint
    assert (
        version.tags.items()
        >= {
            "fingerprint": read_manifest(folders["model"]).fingerprint,
            "metric": "val/mAP",
            "value": "0.625",
            "measured_on": collection,
        }.items()
    )
    assert run.data.tags["index.folder"] == str(folders["index"])
    (data,) = run.inputs.dataset_inputs  # type: ignore[union-attr]
    assert (data.dataset.name, data.dataset.digest) == ("collection", collection[:32])
    assert {file.path for file in MlflowClient(store).list_artifacts(tracker.run_id)} >= {"bundle", "report", "config"}


def test_photos_that_nobody_labelled_give_no_report_and_their_network_no_figure(store: str, tmp_path: Path) -> None:
    tracker, folders = open_run(store, experiment="as it is", key="k"), results(tmp_path, "as it is")
    del folders["report"]
    first = tracker.log_results(folders, model_name="as it is")
    assert first is not None and first.is_champion
    assert "value" not in MlflowClient(store).get_model_version("as it is", "1").tags
    assert MlflowClient(store).get_run(tracker.run_id).data.metrics == {}


def test_a_figure_of_nothing_is_a_figure(store: str, tmp_path: Path) -> None:
    done = open_run(store, experiment="results", key="nothing").log_results(results(tmp_path, 0.0), model_name="nil")
    assert done is not None and MlflowClient(store).get_model_version("nil", "1").tags["value"] == "0.0"


def test_a_model_without_a_figure_is_not_registered(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = open_run(store, experiment="results", key="no figure")
    assert tracker.log_results(results(tmp_path, None), model_name="never") is None
    assert "Nothing to validate on" in caplog.text
    assert MlflowClient(store).search_model_versions("name = 'never'") == []


def test_a_frozen_network_is_registered_without_a_figure_and_fetched_whole(store: str, tmp_path: Path) -> None:
    write(tmp_path / "net", tiny())
    folders = results(tmp_path / "done", None)
    folders["model"] = Folder.of(tmp_path / "frozen")
    models_bundle.save_start(models_bundle.start(ModelConfig(backbone=f"onnx:{tmp_path / 'net'}")), folders["model"])
    done = open_run(store, experiment="frozen", key="k").log_results(folders, model_name="frozen")
    assert done is not None and (done.version, done.is_champion) == ("1", True)
    assert MlflowClient(store).get_model_version("frozen", "1").description == "not validated"
    fetched = fetch_bundle("models:/frozen@champion", tmp_path / "cache", uri=store)
    assert models_bundle.load_network(fetched).fingerprint == read_manifest(folders["model"]).fingerprint
    write(tmp_path / "other", tiny(seed=1))
    folders["model"] = Folder.of(tmp_path / "frozen-2")
    models_bundle.save_start(models_bundle.start(ModelConfig(backbone=f"onnx:{tmp_path / 'other'}")), folders["model"])
    again = open_run(store, experiment="frozen", key="2").log_results(folders, model_name="frozen")
    assert again is not None and (again.version, again.is_champion) == ("2", False)
    assert again.reason.startswith("champion is version 1: it was not validated, so it has no figure")


def test_long_values_and_many_fit_mlflows_limits(store: str) -> None:
    tracker = open_run(store, experiment="limits", key="k")
    many = {f"p{n:03d}": n for n in range(205)}
    long = {"a": "x" * 6000, "b": "x" * 6001, "c": "x" * 6001 + "y"}
    tracker.log_params({**many, **long}, prefix="train")
    params = MlflowClient(store).get_run(tracker.run_id).data.params
    assert len(params) == 208 and params["train.p204"] == "204"
    assert params["train.a"] == "x" * 6000 and len(params["train.b"]) <= 6000
    assert params["train.b"] != params["train.c"], "cut, they are told apart by a digest"


def test_other_work_is_another_run_and_the_same_work_under_way_again(store: str) -> None:
    first = open_run(store, experiment="state", key="k", name="called so", tags={"who": "me"})
    first.finish("FAILED")
    assert MlflowClient(store).get_run(first.run_id).info.status == "FAILED"
    assert open_run(store, experiment="state", key="k") == first
    run = MlflowClient(store).get_run(first.run_id)
    assert run.info.status == "RUNNING" and run.info.run_name == "called so"
    assert (run.data.tags["key"], run.data.tags["who"]) == ("k", "me")
    assert open_run(store, experiment="elsewhere", key="k").run_id != first.run_id
