"""The report of an evaluation: figures of each system, plots, sheets, one page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from retrieval.artifacts.calibration import Calibration, write_calibrations
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.history import TUPLES_SHEET, read_history
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.progress import Progress, silent
from retrieval.evaluation import tasks
from retrieval.evaluation.calibration.fit import calibrate_system, figures_of
from retrieval.evaluation.pieces.gallery import Spread, here
from retrieval.evaluation.systems import (
    CountInliers,
    Scoring,
    System,
    baselines,
    drop_own,
    embed_seconds,
    gallery_of,
    origin,
    scored,
)
from retrieval.evaluation.tasks import Task
from retrieval.reports import charts, scenes
from retrieval.reports.page import Sheet, ranked_sheet, render
from retrieval.reports.sheets import evidence, matches_jpg, sheet_jpg, sheet_rows
from retrieval.reports.tables import METRICS, TIMINGS, timed
from retrieval.search.rerank import count_inliers

ASIDE = ("*.png", "*.jpg", "report.html", TIMINGS)
"""What of a report does not come out the same each time: only METRICS and CALIBRATION are its content."""

_MAX_SHEETS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """What a report shows beside its figures."""

    subject: str = "person"
    """What a label names, for the report's words: person or place."""
    sheet_queries: int = 8
    seed: int = 0
    """So many queries are drawn, with this seed, to show what they find."""
    tuples: Folder | None = None
    """Sealed training tuples, to show what they were mined from."""


@dataclass(slots=True)
class _Found:
    """What scoring gave so far: metrics.json, timings.json, and what is drawn of each system."""

    metrics: dict[str, Any]
    seconds: dict[str, Any] = field(default_factory=lambda: {"systems": {}})
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    sheets: list[Sheet] = field(default_factory=list)
    calibrations: dict[str, Calibration] = field(default_factory=dict)


def write_report(
    out: Folder,
    collection: Folder,
    systems: Sequence[System],
    task: Task,
    scoring: Scoring,
    shown: Shown,
    count: CountInliers = count_inliers,
    spread: Spread = here,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Score all systems; figures, plots, sheets and one page to `out`. Embeddings stay here, figures come back.

    Args: scoring: of the first and the last system; those between are not re-ranked, nor are their scores calibrated.
        count: see `CountInliers`. spread: how pieces of the gallery are looked at, see `Spread`.

    Returns: the content of metrics.json.
    """
    found = _score(collection, systems, task, scoring, shown, count, spread, progress)
    write_calibrations(out, found.calibrations)
    metrics = {**timed(found.metrics, found.seconds), "calibrations": found.calibrations}
    plots = _plots(metrics, found.curves, systems)
    sheets = _few(found.sheets) + _training_tuples(systems[-1])
    if scoring.rerank:
        sheets += _matched_points(task, collection, systems[-1], _drawn(task, shown), scoring.features, count, spread)
    if shown.tuples is not None:
        plots += scenes.scene_plots(shown.tuples)
    for name, data in plots:
        out.write_bytes(f"{_file_name(name)}.png", data)
    for sheet in sheets:
        out.write_bytes(f"{_file_name(sheet.title)}.jpg", sheet.data)
    title = f"Retrieval of a {shown.subject}: " + ", then ".join(system.name for system in systems)
    page = render(metrics, title=title, plots=plots, sheets=sheets, facts=_facts(collection, systems))
    out.write_bytes("report.html", page.encode())
    out.write_json(TIMINGS, found.seconds)
    out.write_json(METRICS, found.metrics)
    return found.metrics


def _score(
    collection: Folder,
    systems: Sequence[System],
    task: Task,
    scoring: Scoring,
    shown: Shown,
    count: CountInliers,
    spread: Spread,
    progress: Progress,
) -> _Found:
    found = _Found({"data": tasks.describe(task) | {"subject": shown.subject}, "systems": {}})
    found.metrics["floors"] = baselines(task)
    for system in systems:
        at_an_end = system in (systems[0], systems[-1])
        own = scoring if at_an_end else dataclasses.replace(scoring, rerank=0)
        for name, measured in scored(system, task, collection, own, count, spread, progress):
            found.metrics["systems"][name] = origin(system) | measured.figures
            found.seconds["systems"][name] = embed_seconds(system) | measured.seconds
            found.curves[name] = measured.curve
            rows = sheet_rows(task, measured.found, collection, _drawn(task, shown))
            found.sheets.append(ranked_sheet(name, sheet_jpg(rows, title=f"{name}: the nearest of each query")))
        if at_an_end:
            calibration = calibrate_system(system, task, collection, shown.subject)
            found.calibrations[system.name] = calibration
            found.metrics["systems"][system.name] |= figures_of(calibration)
    found.metrics["order"] = list(found.metrics["systems"])
    return found


def _drawn(task: Task, shown: Shown) -> np.ndarray:
    """The queries whose results are shown, the same for every system."""
    return np.random.default_rng(shown.seed).permutation(len(task.queries))[: shown.sheet_queries]


def _few(sheets: list[Sheet]) -> list[Sheet]:
    """The first and the last say what all the steps between did."""
    return sheets if len(sheets) <= _MAX_SHEETS else [sheets[0], *sheets[1 - _MAX_SHEETS :]]


def _plots(
    metrics: Mapping[str, Any], curves: Mapping[str, np.ndarray], systems: Sequence[System]
) -> list[tuple[str, bytes]]:
    """(what it shows, PNG bytes)."""
    plots = [("retrieval", charts.retrieval_png(metrics))]
    if metrics["floors"] is not None:
        plots.append(("attribute accuracy", charts.attributes_png(metrics)))
    plots.append(("precision and recall", charts.precision_recall_png({n: list(c) for n, c in curves.items()})))
    if fitted := {name: one for name, one in metrics["calibrations"].items() if one.reliability}:
        plots.append(("reliability", charts.reliability_png(fitted)))
    for system in systems:
        if history := read_history(system.model):
            return [*plots, (f"training curves, {system.name}", charts.curves_png(history))]
    return plots


def _facts(collection: Folder, systems: Sequence[System]) -> dict[str, str]:
    facts = {"collection": f"{collection} {read_manifest(collection).fingerprint}"}
    for system in systems:
        for kind in ("model", "embeddings", "index"):
            if (folder := getattr(system, kind)) is not None:
                facts[f"{system.name}: {kind}"] = f"{folder} {read_manifest(folder).fingerprint}"
    return facts


def _training_tuples(system: System) -> list[Sheet]:
    """What training looked at, if its bundle says."""
    if not system.model.exists(TUPLES_SHEET):
        return []
    note = "Left, the query; then its positive, green, and its hard negatives, red, with their scores after training."
    return [Sheet(title="Training tuples", note=note, data=system.model.read_bytes(TUPLES_SHEET))]


def _matched_points(
    task: Task,
    collection: Folder,
    system: System,
    drawn: np.ndarray,
    kept: Folder | None,
    count: CountInliers,
    spread: Spread,
) -> list[Sheet]:
    """Which points the results of some queries have in common with them."""
    asked = dataclasses.replace(task, queries=task.queries.take(drawn), exclude=task.exclude[drawn])
    queries = tasks.read_embeddings(system.embeddings, asked.queries)
    near = min(10, task.most)
    found = gallery_of(system, task, spread, exact=True).search(queries, near + int(task.asks_itself))
    nearest = drop_own(found, task, drawn, near)
    places = asked.queries.places(np.arange(len(drawn)))
    counts = count(collection, places, asked.gallery.places(nearest.rows), kept)
    pairs = evidence(collection, asked, nearest, counts, 3, kept)
    if not pairs:
        return []
    picture = matches_jpg(pairs, title="query and result, with the points that match")
    note = "Why a result was put first: local features that fit one two-view geometry."
    return [Sheet(title="Matched points", note=note, data=picture)]


def _file_name(name: str) -> str:
    return name.lower().replace(", ", "-").replace(" + ", "+").replace(" ", "_")
