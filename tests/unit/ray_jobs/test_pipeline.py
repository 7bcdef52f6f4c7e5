"""The two roads with jobs that do nothing but seal: which steps, in what order, on what, and what is handed back."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from ray_jobs import pipeline
from ray_jobs.pipeline import Run
from ray_jobs.presets import (
    DEMO,
    DEMO_LANDMARKS,
    FACES,
    FACES_TRAIN,
    LANDMARKS,
    LANDMARKS_PUBLISHED,
    LEARNED,
    AnyConfig,
    FacesConfig,
    FacesTrainConfig,
    LandmarksConfig,
    TrainedConfig,
    num_steps,
)
from ray_jobs.runtime.parallel.limits import Limits
from ray_jobs.runtime.road import Road
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.models.known_weights import FOLDER
from retrieval.models.network import EmbeddingNet
from tests.support.fake_jobs import FakeJob, sealed
from tests.support.local import random_aliked

JOBS = ("ingest", "describe", "reconstruct", "train", "whiten", "embed", "build_index", "evaluate", "group")


class Jobs:
    """The fake jobs by name, and the order in which all of them ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.order: list[str] = []
        self.by_name = {name: FakeJob(getattr(pipeline, name), self.order) for name in JOBS}
        for name, fake in self.by_name.items():
            monkeypatch.setattr(pipeline, name, fake)
        fingerprint = lambda source, layout: f"{source} as {layout}"  # noqa: E731
        monkeypatch.setattr(self.ingest, "source_fingerprint", fingerprint, raising=False)
        monkeypatch.setattr(pipeline, "on_cluster", lambda work, *args: self.labelled)
        monkeypatch.setattr(pipeline, "draw_faces", lambda demo, out: f"{out.uri}/faces")
        monkeypatch.setattr(pipeline, "draw_places", lambda scenes, out: f"{out.uri}/places")
        monkeypatch.setattr("retrieval.models.bundle.save_scaled", self._scaled)
        monkeypatch.setattr("retrieval.models.bundle.start", self._build)
        monkeypatch.setattr("retrieval.models.bundle.save_start", lambda net, out: sealed(out, "model", self.content))
        monkeypatch.setattr("retrieval.models.bundle.digest_of", lambda net: self.content)
        self.built: list[tuple[Any, dict[str, Any]]] = []
        self.labelled, self.content = False, "weights as they are"

    def __getattr__(self, name: str) -> FakeJob:
        return self.__dict__["by_name"][name]

    def _scaled(self, model: Folder, out: Folder, scales: tuple[float, ...]) -> None:
        self.order.append("scale")
        sealed(out, "model", f"{read_manifest(model).fingerprint} at {scales}")

    def _build(self, config: Any, **options: Any) -> EmbeddingNet:
        self.built.append((config, options))
        return f"{config} {options}"  # type: ignore[return-value]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    return Jobs(monkeypatch)


def run(cfg: AnyConfig, where: Path) -> dict[str, Folder]:
    folder, weights = Folder.of(where), "file.pth" if isinstance(cfg, TrainedConfig) else "none"
    made: Any = Run(cfg, folder, "the tracker", Road(folder, num_steps(cfg)), weights, b"yunet")  # type: ignore[arg-type]
    road = {FacesConfig: pipeline.faces, FacesTrainConfig: pipeline.train_faces, LandmarksConfig: pipeline.landmarks}
    return road[type(cfg)](made)


def numbers(caplog: pytest.LogCaptureFixture) -> list[tuple[int, int]]:
    found = (re.match(r"\[(\d+)/(\d+)\] ", record.getMessage()) for record in caplog.records)
    return [(int(match[1]), int(match[2])) for match in found if match]


@pytest.mark.parametrize(
    "cfg", [FACES, FACES_TRAIN, DEMO, LANDMARKS, DEMO_LANDMARKS, dataclasses.replace(LANDMARKS, ablate=False)]
)
def test_the_steps_are_counted_from_first_to_last(
    cfg: AnyConfig, jobs: Jobs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run(cfg, tmp_path)
    assert numbers(caplog) == [(at, num_steps(cfg)) for at in range(1, num_steps(cfg) + 1)]


def test_faces_that_nobody_named_are_grouped_by_a_network_as_it_is(jobs: Jobs, tmp_path: Path) -> None:
    cfg = dataclasses.replace(FACES, source="photos", device="cpu")
    made = run(cfg, tmp_path)
    assert jobs.order == ["ingest", "embed", "build_index", "group"]
    assert set(made) == {"collection", "model", "index", "people"}
    ((config, options),) = jobs.built
    assert (config.backbone, options["weights"]) == ("onnx:sface", "none")
    assert (options["preparation"]["crop"], options["preparation"]["detector"]) == ("aligned", "yunet")
    assert options["detector"] == b"yunet"
    (grouped,) = jobs.group.ran
    assert (grouped.index, grouped.model) == (made["index"].uri, made["model"].uri)
    assert grouped.embeddings == jobs.build_index.ran[0].embeddings
    assert (grouped.previous, grouped.calibration, grouped.group) == ("", "", cfg.grouping)
    assert jobs.group.beside == [{"tracker": "the tracker"}]
    assert jobs.build_index.ran[0].splits == cfg.served_splits


def test_faces_that_somebody_named_are_measured_too(jobs: Jobs, tmp_path: Path) -> None:
    jobs.labelled = True
    made = run(dataclasses.replace(FACES, source="photos"), tmp_path)
    assert jobs.order == ["ingest", "embed", "build_index", "evaluate", "group"]
    (evaluated,) = jobs.evaluate.ran
    assert (evaluated.protocol, evaluated.subject) == ("leave-one-out", "person")
    ((system),) = evaluated.systems
    assert (system.name, system.model) == ("sface", made["model"])
    assert jobs.group.ran[0].calibration == evaluated.out, "which says what a score means"


def test_the_numbers_of_published_people_go_on(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = dataclasses.replace(FACES, source="photos")
    first = run(cfg, tmp_path)
    monkeypatch.setattr(pipeline.published, "is_published", lambda workspace: True)
    monkeypatch.setattr(pipeline.published, "read_current", lambda workspace: first)
    assert run(cfg, tmp_path) == first, "the same photos: what is there is taken"
    more = run(dataclasses.replace(cfg, index=dataclasses.replace(cfg.index, factory="KDTree")), tmp_path)
    assert more["people"] != first["people"]
    assert [one.previous for one in jobs.group.ran] == ["", first["people"].uri]


def test_faces_are_measured_before_and_after_and_all_are_served(jobs: Jobs, tmp_path: Path) -> None:
    cfg = dataclasses.replace(FACES_TRAIN, source="photos", num_workers=3, device="cpu")
    made = run(cfg, tmp_path)
    assert jobs.order == [
        *("ingest", "train", "embed", "embed", "build_index", "build_index", "build_index", "evaluate")
    ]
    (trained,), (evaluated,) = jobs.train.ran, jobs.evaluate.ran
    assert jobs.train.beside == [{"tracker": "the tracker"}]
    assert (trained.collection, trained.tuples, trained.weights) == (made["collection"].uri, "", "file.pth")
    assert (trained.model, trained.train, trained.num_workers, trained.device) == (cfg.model, cfg.train, 3, "cpu")
    assert [cfg.model for cfg in jobs.embed.ran] == [made["before"].uri, made["model"].uri]
    assert [cfg.device for cfg in jobs.embed.ran] == ["cpu", "cpu"]
    before, after = evaluated.systems
    assert (before.name, before.model, after.name, after.model) == ("before", made["before"], "after", made["model"])
    assert evaluated.protocol == "query-gallery"
    indexed = {index.out: index for index in jobs.build_index.ran}
    for system in (before, after):
        assert indexed[system.index.uri].splits == ("gallery",)
        assert indexed[system.index.uri].embeddings == system.embeddings.uri
    served = indexed[made["index"].uri]
    assert (served.splits, served.embeddings) == (cfg.served_splits, after.embeddings.uri)
    assert set(made) == {"collection", "before", "model", "index", "report"}


def test_a_face_model_is_compared_with_its_whole_trunk_averaged(jobs: Jobs, tmp_path: Path) -> None:
    run(dataclasses.replace(FACES_TRAIN, train=dataclasses.replace(FACES_TRAIN.train, seed=7)), tmp_path)
    ((config, options),) = jobs.built
    assert (config.backbone, config.head, config.image_size) == ("mobilenet_v2", "none", 160)
    assert (config.cut, config.pooling, config.flip) == ("", "avg", False)
    assert (options["seed"], options["weights"], options["preparation"]["crop"]) == (7, "file.pth", "aligned")


def test_a_place_model_is_compared_with_itself_without_a_head(jobs: Jobs, tmp_path: Path) -> None:
    seeded = dataclasses.replace(DEMO_LANDMARKS, siamese=dataclasses.replace(DEMO_LANDMARKS.siamese, seed=5))
    run(seeded, tmp_path)
    ((config, options),) = jobs.built
    assert config == dataclasses.replace(DEMO_LANDMARKS.model, head="none")
    assert options["seed"] == 5


def test_learned_features_are_kept_for_the_report_and_for_the_service(jobs: Jobs, tmp_path: Path) -> None:
    cfg = dataclasses.replace(LANDMARKS, source="photos", ablate=False, rerank=50, rerank_by="aliked")
    made = run(cfg, tmp_path)
    (described,), (evaluated,) = jobs.describe.ran, jobs.evaluate.ran
    assert (described.collection, described.features) == (made["collection"].uri, LEARNED)
    assert evaluated.features == made["features"].uri == described.out and evaluated.rerank == 50
    for other in (dataclasses.replace(cfg, rerank_by="sift"), dataclasses.replace(cfg, rerank=0)):
        assert "features" not in run(other, tmp_path) and not jobs.evaluate.ran[-1].features
    assert len(jobs.describe.ran) == 1


def test_results_are_put_in_order_by_what_is_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv(FOLDER, str(tmp_path))

    def decided(cfg: LandmarksConfig = LANDMARKS, **settings: Any) -> tuple[int | None, str]:
        found = pipeline.with_local_features(dataclasses.replace(cfg, **settings))
        return found.rerank, found.rerank_by

    assert decided() == (0, "sift") and "not put in order by geometry" in caplog.text
    assert decided(rerank=7) == (7, "sift") and "weights --fetch aliked-n16" in caplog.text
    assert decided(rerank_by="sift") == (0, "sift") and decided(LANDMARKS_PUBLISHED) == (0, "auto")
    assert decided(DEMO_LANDMARKS) == (20, "sift")
    with pytest.raises(ValueError, match="weights aliked-n16 are not here"):
        pipeline.with_local_features(dataclasses.replace(LANDMARKS, rerank_by="aliked"))
    known = tmp_path / "aliked.safetensors"
    known.write_bytes(random_aliked())
    monkeypatch.setattr(pipeline, "find", lambda name: known)
    monkeypatch.setattr(pipeline.describe, "network_of", lambda config: b"")
    assert decided() == (50, "aliked") and decided(rerank=7) == (7, "aliked")
    assert decided(DEMO_LANDMARKS) == (20, "sift") and decided(LANDMARKS_PUBLISHED) == (0, "auto")


def test_what_results_are_put_in_order_by_is_said_where_it_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once lines are shown, and before Ray is started."""
    said: list[str] = []
    monkeypatch.setattr(pipeline.quiet, "set_up_logging", lambda: said.append("lines are shown"))
    monkeypatch.setattr(pipeline, "session", lambda *_, **__: pytest.fail("Ray was started"))

    def refuse(cfg: LandmarksConfig) -> LandmarksConfig:
        raise ValueError(", ".join(said))

    monkeypatch.setattr(pipeline, "with_local_features", refuse)
    with pytest.raises(ValueError, match="lines are shown"):
        pipeline.main(DEMO_LANDMARKS)


def test_places_served_with_scales_and_whitening_are_the_last_of_all(jobs: Jobs, tmp_path: Path) -> None:
    made = run(dataclasses.replace(LANDMARKS, source="photos"), tmp_path)
    (evaluated,) = jobs.evaluate.ran
    assert [system.name for system in evaluated.systems] == [
        "before",
        "before + Lw",
        "before + ms",
        "before + ms + Lw",
        "after",
        "after + Lw",
        "after + ms",
        "after + ms + Lw",
    ]
    systems = {system.name: system for system in evaluated.systems}
    assert made["model"] == systems["after + ms + Lw"].model and made["trained"] == systems["after"].model
    # Whitening is learned on the embeddings of the very model it is put on, at the scales that it is used at.
    learned = {job.out: job for job in jobs.whiten.ran}
    for name in ("before", "after", "before + ms", "after + ms"):
        job = learned[systems[f"{name} + Lw"].model.uri]
        assert (job.model, job.embeddings) == (systems[name].model.uri, systems[name].embeddings.uri)
        assert (job.tuples, job.whiten) == (made["tuples"].uri, LANDMARKS.whiten)
    assert all(system.index is None for system in evaluated.systems)
    (index,) = jobs.build_index.ran
    assert index.embeddings == systems["after + ms + Lw"].embeddings.uri
    assert (evaluated.expansion, evaluated.rerank, evaluated.subject) == (LANDMARKS.expansion, 0, "place")
    assert evaluated.tuples == made["tuples"].uri


def test_a_linear_head_starts_as_whitening_of_its_length(jobs: Jobs, tmp_path: Path) -> None:
    made = run(DEMO_LANDMARKS, tmp_path)
    (whitened,), (trained,) = jobs.whiten.ran, jobs.train.ran
    assert whitened.whiten == dataclasses.replace(DEMO_LANDMARKS.whiten, dim=DEMO_LANDMARKS.model.embedding_dim)
    assert whitened.model == made["before"].uri and trained.weights == whitened.out
    assert (trained.siamese, trained.tuples) == (DEMO_LANDMARKS.siamese, made["tuples"].uri)
    assert jobs.order.index("whiten") < jobs.order.index("train")
    assert [system.name for system in jobs.evaluate.ran[0].systems] == ["before", "after", "after + ms"]


def test_without_a_linear_head_training_starts_from_the_weights(jobs: Jobs, tmp_path: Path) -> None:
    run(dataclasses.replace(LANDMARKS, ablate=False), tmp_path)
    assert (
        jobs.train.ran[0].weights == "file.pth"
        and jobs.train.ran[0].train == type(jobs.train.ran[0])(collection="", out="").train
    )


@pytest.mark.parametrize("mining", ["structure", "clusters"])
@pytest.mark.parametrize("labelled", [False, True])
def test_what_mining_is_and_who_asks(mining: Any, labelled: bool, jobs: Jobs, tmp_path: Path) -> None:
    jobs.labelled = labelled
    run(dataclasses.replace(LANDMARKS, mining=mining, ablate=False, rerank=20), tmp_path)
    assert jobs.reconstruct.ran[0].labels_as_clusters == (mining == "clusters")
    assert jobs.evaluate.ran[0].protocol == ("leave-one-out" if labelled else "mined-places")
    assert jobs.evaluate.ran[0].rerank == 20


def test_drawn_photos_lie_by_their_settings(jobs: Jobs, tmp_path: Path) -> None:
    for cfg, kind in ((DEMO, "faces"), (DEMO_LANDMARKS, "places")):
        run(cfg, tmp_path)
        assert re.fullmatch(rf"{tmp_path}/photos/[0-9a-f]{{10}}/{kind}", jobs.ingest.ran[-1].source)
    other = dataclasses.replace(DEMO, demo=dataclasses.replace(DEMO.demo, seed=1))
    run(other, tmp_path)
    assert len({cfg.source for cfg in jobs.ingest.ran}) == 3


@pytest.mark.parametrize("cfg", [FACES_TRAIN, LANDMARKS, DEMO_LANDMARKS])
def test_a_second_run_does_nothing_and_other_weights_under_the_same_name_train_again(
    cfg: AnyConfig, jobs: Jobs, tmp_path: Path
) -> None:
    first = run(cfg, tmp_path)
    jobs.order.clear()
    assert run(cfg, tmp_path) == first and jobs.order == []
    jobs.content = "weights that were changed"
    again = run(cfg, tmp_path)
    assert again["before"] != first["before"] and len({cfg.out for cfg in jobs.train.ran}) == 2
    assert "train" in jobs.order and "ingest" not in jobs.order and "reconstruct" not in jobs.order


@pytest.mark.parametrize("cfg", [FACES_TRAIN, LANDMARKS])
def test_a_workspace_of_any_name_does(cfg: AnyConfig, jobs: Jobs, tmp_path: Path) -> None:
    cfg = dataclasses.replace(cfg, source="photos")
    plain, odd = run(cfg, tmp_path / "plain"), run(cfg, tmp_path / "run=1, second try")
    assert odd["collection"].uri.rpartition("/")[2] == plain["collection"].uri.rpartition("/")[2]
    for system in jobs.evaluate.ran[-1].systems:
        assert system.model.uri.startswith(f"{tmp_path}/run=1, second try/model/")


def test_workers_and_devices_change_no_folder(jobs: Jobs, tmp_path: Path) -> None:
    first = run(FACES_TRAIN, tmp_path)
    assert run(dataclasses.replace(FACES_TRAIN, num_workers=4, device="cpu"), tmp_path) == first
    other = dataclasses.replace(FACES_TRAIN, index=dataclasses.replace(FACES_TRAIN.index, factory="KDTree"))
    changed = run(other, tmp_path)
    assert changed["model"] == first["model"] and changed["index"] != first["index"] != changed["report"]


class FakeTracker:
    """A run of MLflow that writes down what it is told."""

    def __init__(self) -> None:
        self.uri, self.run_id = "sqlite:///x", "r1"
        self.told: list[Any] = []
        self.limits = Limits()

    def log_params(self, config: Any, prefix: str) -> None:
        self.told.append(("params", prefix, config["model_name"]))

    def log_results(self, folders: dict[str, Folder], *, model_name: str) -> None:
        self.told.append(("results", sorted(folders), model_name))

    def finish(self, status: str = "FINISHED") -> None:
        self.told.append(status)


@pytest.fixture
def whole(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> tuple[FakeTracker, list[Any]]:
    """`main` without a cluster and MLflow. Returns the tracker, and how runs were opened."""
    tracker, opened = FakeTracker(), []

    def open_run(uri: str, **how: Any) -> FakeTracker:
        opened.append((uri, how))
        return tracker

    def session(limits: Limits, **_: Any) -> Any:
        tracker.limits = limits
        return contextlib.nullcontext()

    monkeypatch.setattr(pipeline, "session", session)
    monkeypatch.setattr(jobs.train, "resolve_weights", lambda weights, uri, near: f"fetched {weights}", raising=False)
    monkeypatch.setattr(pipeline, "open_run", open_run)
    monkeypatch.setattr(pipeline, "summary", lambda *of: "the summary")
    monkeypatch.setattr(pipeline.published, "publish", lambda workspace, **of: tracker.told.append(("publish", of)))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tracker, opened


def small(where: Path, **settings: Any) -> FacesTrainConfig:
    return dataclasses.replace(FACES_TRAIN, weights="none", workspace=str(where / "w"), model_name="people", **settings)


def test_a_pipeline_publishes_and_logs_what_it_made(
    whole: tuple[FakeTracker, list[Any]], jobs: Jobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = whole[0]
    made = pipeline.main(small(tmp_path))
    ((uri, how),) = whole[1]
    assert (uri, how["experiment"]) == (f"sqlite:///{tmp_path}/w/mlflow.db", "people")
    assert len(how["key"]) == 24 and how["name"].startswith("mobilenet_v2-")
    published = {kind: made[kind] for kind in ("collection", "model", "index", "report")}
    assert tracker.told == [
        ("params", "pipeline", "people"),
        ("publish", published),
        ("results", sorted(made), "people"),
        "FINISHED",
    ]
    assert capsys.readouterr().out == "the summary\n"
    assert jobs.train.ran[0].weights == "fetched none"


def test_people_are_published_too(whole: tuple[FakeTracker, list[Any]], tmp_path: Path) -> None:
    made = pipeline.main(dataclasses.replace(FACES, source=str(tmp_path), workspace=str(tmp_path / "w")))
    assert ("publish", made) in whole[0].told and set(made) == {"collection", "model", "index", "people"}


def test_the_run_of_mlflow_is_the_works_and_not_the_machines(
    whole: tuple[FakeTracker, list[Any]], tmp_path: Path
) -> None:
    limits = Limits(max_rejected=0.5, wait_seconds=7)
    for settings in ({}, {"num_workers": 4}, {"device": "cpu"}, {"limits": limits}, {"served_splits": ("gallery",)}):
        pipeline.main(small(tmp_path, **settings))
    pipeline.main(small(tmp_path / "elsewhere"))
    first, workers, device, limited, other, elsewhere = (how["key"] for _, how in whole[1])
    assert first == workers == device == limited and len({first, other, elsewhere}) == 3


def test_the_limits_of_a_pipeline_hold_for_its_session(whole: tuple[FakeTracker, list[Any]], tmp_path: Path) -> None:
    """And so for every step: tests/unit/ray_jobs/test_session.py."""
    pipeline.main(small(tmp_path, limits=Limits(max_rejected=0.5)))
    assert whole[0].limits == Limits(max_rejected=0.5)


def test_a_pipeline_that_fails_says_so_in_its_run(
    whole: tuple[FakeTracker, list[Any]], jobs: Jobs, tmp_path: Path
) -> None:
    def fail(cfg: Any, **_: Any) -> None:
        raise KeyboardInterrupt

    jobs.by_name["train"].main = fail  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        pipeline.main(small(tmp_path))
    assert whole[0].told[-1] == "FAILED" and ("FINISHED" not in whole[0].told)


@pytest.mark.parametrize("settings", [{"source": "no"}, {"weights": "no.pth"}])
def test_what_is_not_there_is_refused_before_anything(
    settings: Any, whole: tuple[FakeTracker, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"There is nothing at {tmp_path}/no"):
        pipeline.main(dataclasses.replace(small(tmp_path), **settings))
    assert whole[1] == []
