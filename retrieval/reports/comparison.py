"""The report of an evaluation: figures of each system, plots, sheets, one page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.history import read_history
from retrieval.artifacts.manifest import read_manifest
from retrieval.evaluation import tasks
from retrieval.evaluation.systems import (
    CountInliers,
    Scoring,
    System,
    floors,
    origin,
    scored,
    search_without_own,
)
from retrieval.evaluation.tasks import Task
from retrieval.reports import charts, scenes
from retrieval.reports.page import Sheet, ranked_sheet, render
from retrieval.reports.sheets import evidence, matches_jpg, sheet_jpg, sheet_rows
from retrieval.search.index import flat_search
from retrieval.search.ranking import Neighbours
from retrieval.search.rerank import count_inliers

_MAX_SHEETS = 4


def write_report(
    out: Folder,
    collection: Folder,
    systems: Sequence[System],
    task: Task,
    scoring: Scoring,
    *,
    subject: str = "person",
    sheet_queries: int = 8,
    seed: int = 0,
    tuples: Folder | None = None,
    count: CountInliers = count_inliers,
) -> dict[str, Any]:
    """Score all systems; figures, plots, sheets and one page to `out`. Embeddings stay here, figures come back.

    Args:
        scoring: of the first and the last system; those between are not re-ranked.
        subject: what a label names, for the report's words. sheet_queries, seed: the queries that are shown.
        tuples: sealed training tuples, to show what they were mined from. count: see `CountInliers`.
    """
    metrics: dict[str, Any] = {"data": tasks.describe(task) | {"subject": subject}, "systems": {}}
    metrics["floors"] = floors(task)
    sheets, plots, curves = [], [], {}
    for system in systems:
        own = scoring if system in (systems[0], systems[-1]) else dataclasses.replace(scoring, rerank=0)
        for name, measured in scored(system, task, collection, own, count):
            metrics["systems"][name] = origin(system) | measured.figures
            curves[name] = measured.curve
            rows = sheet_rows(task, measured.found, collection, num_queries=sheet_queries, seed=seed)
            picture = sheet_jpg(rows, title=f"{name}: the nearest of each query")
            sheets.append(ranked_sheet(name, picture))
        if (history := read_history(system.model)) and not any(of.startswith("training curves") for of, _ in plots):
            plots.append((f"training curves, {system.name}", charts.curves_png(history)))
    metrics["order"] = list(metrics["systems"])
    if len(sheets) > _MAX_SHEETS:  # the first and the last say what all the steps between did
        sheets = [sheets[0], *sheets[1 - _MAX_SHEETS :]]
    plots.insert(0, ("retrieval", charts.retrieval_png(metrics)))
    plots.insert(1, ("precision and recall", charts.precision_recall_png(curves)))
    if metrics["floors"] is not None:
        plots.insert(1, ("attribute accuracy", charts.attributes_png(metrics)))
    sheets += _training_tuples(systems[-1])
    if scoring.rerank:
        drawn = np.random.default_rng(seed).permutation(len(task.queries.ids))[:sheet_queries]
        sheets += _matched_points(task, collection, systems[-1], drawn)
    if tuples is not None:
        plots += scenes.scene_plots(tuples)
    for name, data in plots:
        out.write_bytes(f"{_file_name(name)}.png", data)
    for sheet in sheets:
        out.write_bytes(f"{_file_name(sheet.title)}.jpg", sheet.data)
    facts = {"collection": f"{collection} {read_manifest(collection).fingerprint}"}
    for system in systems:
        for kind in ("model", "embeddings", "index"):
            if (folder := getattr(system, kind)) is not None:
                facts[f"{system.name}: {kind}"] = f"{folder} {read_manifest(folder).fingerprint}"
    title = f"Retrieval of a {subject}: " + ", then ".join(system.name for system in systems)
    page = render(metrics, title=title, plots=plots, sheets=sheets, facts=facts)
    out.write_bytes("report.html", page.encode())
    out.write_json("metrics.json", metrics)
    return metrics


def _training_tuples(system: System) -> list[Sheet]:
    """What training looked at, if its bundle says."""
    if not system.model.exists("tuples.jpg"):
        return []
    note = "Left, the query; then its positive, green, and its hard negatives, red, with their scores after training."
    return [Sheet(title="Training tuples", note=note, data=system.model.read_bytes("tuples.jpg"))]


def _matched_points(task: Task, collection: Folder, system: System, drawn: np.ndarray) -> list[Sheet]:
    """Which points the results of some queries have in common with them."""
    queries, gallery = (tasks.read_embeddings(system.embeddings, side) for side in (task.queries, task.gallery))
    found = search_without_own(task, queries, flat_search(gallery), 10)
    asked = dataclasses.replace(task, queries=task.queries.take(drawn), exclude=task.exclude[drawn])
    nearest = Neighbours(found.scores[drawn], found.rows[drawn])
    places = asked.queries.places(np.arange(len(drawn)))
    counts = count_inliers(collection, places, asked.gallery.places(nearest.rows))
    pairs = evidence(collection, asked, nearest, counts, 3)
    if not pairs:
        return []
    picture = matches_jpg(pairs, title="query and result, with the points that match")
    note = "Why a result was put first: local features that fit one two-view geometry."
    return [Sheet(title="Matched points", note=note, data=picture)]


def _file_name(name: str) -> str:
    return name.lower().replace(", ", "-").replace(" + ", "+").replace(" ", "_")
