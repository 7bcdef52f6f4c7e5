"""The two roads with jobs that do nothing but seal: which steps, in what order, on what, and what is handed back."""

from __future__ import annotations

import dataclasses
import logging
import re
from pathlib import Path

import pytest

from ray_jobs import pipeline
from ray_jobs.presets import (
    DEMO,
    DEMO_LANDMARKS,
    FACES,
    FACES_TRAIN,
    LANDMARKS,
    AnyConfig,
    num_steps,
)
from tests.support.fake_road import Jobs, numbers, run


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    return Jobs(monkeypatch)


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
