"""A report from end to end: its files, what is content among them, and what it shows of each system."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval.artifacts.calibration import read_calibrations
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Manifest, read_manifest, seal
from retrieval.evaluation import systems, tasks
from retrieval.evaluation.calibration.fit import calibrate_system
from retrieval.evaluation.systems import Scoring, System
from retrieval.evaluation.tasks import Task
from retrieval.reports import comparison, sheets, tables
from retrieval.reports.comparison import Shown, write_report
from retrieval.reports.page import Sheet
from retrieval.search.settings import ExpansionConfig
from tests.support.measured import write_collection, write_system

NONE = Scoring(expansion=ExpansionConfig(), augmentation=ExpansionConfig())


@dataclasses.dataclass
class World:
    root: Folder
    collection: Folder
    task: Task
    systems: list[System]

    def report(self, out: str, scoring: Scoring = NONE, shown: Shown | None = None, **given: Any) -> Folder:
        folder = self.root / out
        shown = shown or Shown(sheet_queries=2)
        write_report(folder, self.collection, self.systems, self.task, scoring, shown, **given)
        return folder


PICTURES = ("retrieval_png", "attributes_png", "precision_recall_png", "curves_png")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Its pictures are a few bytes, but where a test takes that back: to draw them takes seconds."""
    for name in PICTURES:
        monkeypatch.setattr(comparison.charts, name, lambda *_, name=name: name.encode())
    monkeypatch.setattr(comparison, "sheet_jpg", lambda rows, title: title.encode())
    root = Folder.of(tmp_path)
    collection = write_collection(root / "collection")
    made = [write_system(root, collection, "before"), write_system(root, collection, "after", seed=7, trained=True)]
    return World(root, collection, tasks.leave_one_out(collection, (2, 9)), made)


def sealed(report: Folder) -> Manifest:
    return seal(report, kind="report", config={}, inputs={}, counts={}, aside=comparison.ASIDE)


def test_what_is_measured_is_content_and_how_long_it_took_is_not(world: World) -> None:
    """The same systems, embedded by a slower machine: the same fingerprint, other seconds on the page."""
    first = world.report("r1")
    slower = [dataclasses.replace(system, embeddings=world.root / f"slow-{system.name}") for system in world.systems]
    for old, new in zip(world.systems, slower, strict=True):
        manifest = read_manifest(old.embeddings)
        for name in manifest.files:
            new.embeddings.write_table(name, old.embeddings.read_table(name))
        kept = {"kind": "embeddings", "config": {}, "inputs": manifest.inputs, "counts": manifest.counts}
        seal(new.embeddings, **kept, run={"seconds": 987.6, "seconds_in_model": 1})
    world.systems = slower
    second = world.report("r2")
    one, two = sealed(first), sealed(second)
    assert one.fingerprint == two.fingerprint and set(one.files) == {"metrics.json", "calibration.json"}
    assert "second" not in str(first.read_json("metrics.json"))
    told = second.read_json("timings.json")["systems"]
    assert set(told) == {"before", "after"}
    for name, seconds in told.items():
        assert sorted(seconds) == ["embed_seconds", "embed_seconds_in_model", "query_seconds@2", "query_seconds@5"]
        assert seconds["embed_seconds"] == 987.6, name
    assert "987.6" in second.read_bytes("report.html").decode()
    assert "12.5" in first.read_bytes("report.html").decode()
    assert "987.6" in tables.as_text(tables.read_metrics(second))


def test_figures_are_those_of_each_system(world: World) -> None:
    metrics = world.report("r", shown=Shown(subject="place", sheet_queries=2)).read_json("metrics.json")
    assert metrics["order"] == ["before", "after"]
    assert metrics["data"] == tasks.describe(world.task) | {"subject": "place"}
    assert metrics["floors"] == systems.baselines(world.task)
    for system in world.systems:
        ((_, measured),) = systems.scored(system, world.task, world.collection, NONE)
        assert metrics["systems"][system.name] == systems.origin(system) | measured.figures
    assert metrics["systems"]["before"]["mAP"] != metrics["systems"]["after"]["mAP"]


def test_a_report_has_a_file_for_each_picture_on_its_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    report = world.report("r")
    pictures = ["retrieval.png", "attribute_accuracy.png", "precision_and_recall.png", "training_curves-after.png"]
    pictures += ["ranked_results-before.jpg", "ranked_results-after.jpg", "training_tuples.jpg"]
    assert sorted(report.list()) == sorted(
        [*pictures, "metrics.json", "calibration.json", "timings.json", "report.html"]
    )
    html = report.read_bytes("report.html").decode()
    shown = re.findall(r'alt="([^"]+)"', html)
    assert [comparison._file_name(name) for name in shown] == [name.rpartition(".")[0] for name in pictures]
    for name in pictures:
        Image.open(io.BytesIO(report.read_bytes(name))).verify()
    assert report.read_bytes("training_tuples.jpg") == world.systems[1].model.read_bytes("tuples.jpg")
    assert "<h1>Retrieval of a person: before, then after</h1>" in html
    for folder in (world.collection, *(part for s in world.systems for part in (s.model, s.embeddings))):
        assert f"{folder} {read_manifest(folder).fingerprint}" in html
    assert "before: model" in html and "after: embeddings" in html and "index</td>" not in html


def test_scores_of_the_first_and_the_last_are_calibrated(world: World) -> None:
    between = write_system(world.root, world.collection, "between", seed=8)
    world.systems.insert(1, between)
    report = world.report("r", shown=Shown(subject="place", sheet_queries=2))
    found = read_calibrations(report)
    assert list(found) == ["before", "after"]
    for system in (world.systems[0], world.systems[-1]):
        assert found[system.name] == calibrate_system(system, world.task, world.collection, "place")
    assert "What a score means" in report.read_bytes("report.html").decode()
    assert "reliability.png" not in report.list()  # three people cannot fit a curve
    assert "too few for a false-accept rate" in tables.as_text(tables.read_metrics(report))


def test_without_attributes_there_is_no_plot_of_them(world: World) -> None:
    world.task.gallery.attributes[:] = 0
    report = world.report("r")
    assert "attribute_accuracy.png" not in report.list() and report.read_json("metrics.json")["floors"] is None


def test_training_is_shown_of_the_first_that_was_trained_and_tuples_of_the_last(world: World) -> None:
    world.systems.reverse()
    files = world.report("r").list()
    assert "training_curves-after.png" in files and "training_tuples.jpg" not in files


def test_the_seed_draws_the_queries_that_are_shown(world: World) -> None:
    drawn = [comparison._drawn(world.task, Shown(sheet_queries=2, seed=seed)).tolist() for seed in range(8)]
    assert len({tuple(some) for some in drawn}) > 2 and all(len(set(some)) == 2 for some in drawn)
    assert drawn[3] == comparison._drawn(world.task, Shown(sheet_queries=2, seed=3)).tolist()
    assert sorted(comparison._drawn(world.task, Shown(sheet_queries=99))) == list(range(5))


def test_every_system_shows_the_same_queries(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[int]] = []
    real = sheets.sheet_rows

    def spy(task: Task, found: Any, collection: Folder, some: np.ndarray) -> Any:
        drawn.append(some.tolist())
        return real(task, found, collection, some)

    monkeypatch.setattr(comparison, "sheet_rows", spy)
    shown = Shown(sheet_queries=3, seed=5)
    world.report("r", shown=shown)
    assert drawn == [comparison._drawn(world.task, shown).tolist()] * 2


def test_only_the_first_and_the_last_are_put_in_order_of_geometry(world: World) -> None:
    world.systems.insert(1, write_system(world.root, world.collection, "between", seed=9))
    asked = []

    def count(collection: Folder, queries: np.ndarray, places: np.ndarray, kept: Folder | None) -> np.ndarray:
        asked.append((queries.tolist(), places.shape))
        return np.zeros(places.shape[:2], np.int64)

    scoring = dataclasses.replace(NONE, rerank=3, expansion=ExpansionConfig(num=1))
    report = world.report("r", scoring, Shown(sheet_queries=2, seed=1), count=count)
    metrics = report.read_json("metrics.json")
    steps = ["", " + QE", " + rerank"]
    wanted = [f"before{step}" for step in steps] + ["between", "between + QE"] + [f"after{step}" for step in steps]
    assert metrics["order"] == wanted == list(tables.read_metrics(report)["systems"])
    sheets_ = [name for name in report.list() if name.startswith("ranked_results")]
    assert sorted(sheets_) == sorted(
        f"ranked_results-{name}.jpg" for name in ("before", "after", "after+qe", "after+rerank")
    )
    drawn = comparison._drawn(world.task, Shown(sheet_queries=2, seed=1))
    assert [shape for _, shape in asked] == [(5, 3, 2), (5, 3, 2), (2, 5, 2)]
    assert asked[2][0] == [[n % 2, n // 2] for n in drawn.tolist()]
    assert "matched_points.jpg" not in report.list()  # nothing matched


def test_matched_points_are_shown_of_the_last_system(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def evidence(
        collection: Folder, task: Task, found: Any, counts: np.ndarray, num: int, kept: Folder | None
    ) -> list[Any]:
        assert kept is world.collection
        seen.append((task.queries.ids.to_pylist(), found.rows, counts, num))
        return ["pair"]

    monkeypatch.setattr(comparison, "evidence", evidence)
    monkeypatch.setattr(comparison, "matches_jpg", lambda pairs, title: world.systems[1].model.read_bytes("tuples.jpg"))
    counts = np.arange(20).reshape(2, 10)
    shown = Shown(sheet_queries=2, seed=1)
    scoring = dataclasses.replace(NONE, rerank=2, features=world.collection)
    report = world.report(
        "r", scoring, shown, count=lambda _, asked, *__: counts if len(asked) == 2 else np.zeros((5, 2), int)
    )
    ((ids, rows, given, num),) = seen
    drawn = comparison._drawn(world.task, shown)
    assert ids == [f"{n}.jpg" for n in drawn] and given is counts and num == 3
    last = world.systems[1]
    queries, gallery = (
        tasks.read_embeddings(last.embeddings, side) for side in (world.task.queries, world.task.gallery)
    )
    scores = queries.astype(float) @ gallery.T.astype(float)
    scores[np.arange(5), world.task.exclude] = -np.inf
    assert rows[:, :5].tolist() == np.argsort(-scores[drawn], axis=1)[:, :5].tolist()
    assert "matched_points.jpg" in report.list()


def test_few_sheets_are_all_shown_of_many_the_first_and_the_last() -> None:
    many = [Sheet(title=str(n), note="", data=b"") for n in range(7)]
    assert comparison._few(many[:4]) == many[:4]
    assert comparison._few(many[:5]) == [many[0], *many[2:5]]
    assert comparison._few(many) == [many[0], *many[4:]]


def test_mined_places_are_drawn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(
        comparison.scenes, "scene_plots", lambda t: given.append(t) or [("reconstructed place 1", b"x")]
    )
    tuples = world.root / "tuples"
    report = world.report("r", shown=Shown(tuples=tuples, sheet_queries=1))
    assert given == [tuples] and report.read_bytes("reconstructed_place_1.png") == b"x"
    world.report("r2")
    assert given == [tuples]
