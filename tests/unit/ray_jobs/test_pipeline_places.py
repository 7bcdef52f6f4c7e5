"""The road of places with jobs that do nothing but seal: what is put on a model, by what results are put in order."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

from ray_jobs import pipeline
from ray_jobs.presets import (
    DEMO_LANDMARKS,
    LANDMARKS,
    LANDMARKS_PUBLISHED,
    LEARNED,
    LandmarksConfig,
)
from retrieval.models.known_weights import FOLDER
from tests.support.fake_road import Jobs, run
from tests.support.local import random_aliked


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    return Jobs(monkeypatch)


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
