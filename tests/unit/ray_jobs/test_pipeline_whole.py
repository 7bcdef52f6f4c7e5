"""The pipeline as it is called: what it refuses, publishes, and tells MLflow."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ray_jobs import pipeline
from ray_jobs.presets import (
    FACES,
    FACES_TRAIN,
    FacesTrainConfig,
)
from ray_jobs.runtime.parallel.limits import Limits
from retrieval.artifacts.folder import Folder
from tests.support.fake_road import Jobs


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    return Jobs(monkeypatch)


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
