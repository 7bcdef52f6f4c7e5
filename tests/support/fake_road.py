"""The roads of the pipeline with jobs that do nothing but seal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ray_jobs import pipeline
from ray_jobs.pipeline import Run
from ray_jobs.presets import (
    AnyConfig,
    FacesConfig,
    FacesTrainConfig,
    LandmarksConfig,
    TrainedConfig,
    num_steps,
)
from ray_jobs.runtime.road import Road
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.models.network import EmbeddingNet
from tests.support.fake_jobs import FakeJob, sealed

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


def run(cfg: AnyConfig, where: Path) -> dict[str, Folder]:
    folder, weights = Folder.of(where), "file.pth" if isinstance(cfg, TrainedConfig) else "none"
    made: Any = Run(cfg, folder, "the tracker", Road(folder, num_steps(cfg)), weights, b"yunet")  # type: ignore[arg-type]
    road = {FacesConfig: pipeline.faces, FacesTrainConfig: pipeline.train_faces, LandmarksConfig: pipeline.landmarks}
    return road[type(cfg)](made)


def numbers(caplog: pytest.LogCaptureFixture) -> list[tuple[int, int]]:
    found = (re.match(r"\[(\d+)/(\d+)\] ", record.getMessage()) for record in caplog.records)
    return [(int(match[1]), int(match[2])) for match in found if match]
