"""What an evaluation computes on one machine: a task and its embeddings in, figures and ranked-result sheets out.

Memory: the embeddings and attributes of the images measured, nothing of size queries x gallery.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval.artifacts import Folder
from retrieval.evaluation import attribute_agreement, index_recall_at_k, ranked_metrics, retrieval_metrics
from retrieval.floors import attribute_floors
from retrieval.index import IndexConfig, Neighbours, Searcher, Shard, build_shard, train_index
from retrieval.protocols import Images, Task, read_jpegs
from retrieval.ranking import drop_rows
from retrieval.report import Hit, SheetRow

_SHEET_RESULTS = 10

Search = Callable[[np.ndarray, int], Neighbours]


def open_index(folder: Folder, gallery: Images) -> Search:
    """A search of a built index, whose rows are rows of `gallery`.

    Raises: ValueError if it does not hold exactly the gallery: other images among the results would change the figures.
    """
    searcher = Searcher.open(folder)
    if list(searcher.ids) != gallery.ids:
        raise ValueError(
            f"The index {folder} holds {len(searcher)} images, the gallery has {len(gallery.ids)}, and they differ. "
            f"Evaluation needs an index of the gallery alone: python -m ray_jobs.build_index --splits gallery ..."
        )
    return searcher.search


def flat_search(gallery: np.ndarray) -> Search:
    """An exact search of (G, D) float32 embeddings, by row."""
    config = IndexConfig(factory="Flat")
    with tempfile.TemporaryDirectory() as temp:
        folder = Folder.of(temp)
        folder.write_bytes(
            "shard", build_shard(config, train_index(config, gallery[:1]), gallery, np.arange(len(gallery)))
        )
        return Shard.load(folder, "shard", mmap=False).search


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One system: its figures, with the keys that report_tables knows, the neighbours they were read off, and the
    precision-recall curve, see `evaluation.RetrievalMetrics`."""

    figures: dict[str, Any]
    found: Neighbours
    curve: np.ndarray


def measure(task: Task, queries: np.ndarray, gallery: np.ndarray, search: Search) -> Measured:
    """Score one system.

    Args:
        queries: (Q, D) float32. gallery: (G, D) float32. search: by gallery row; see `open_index`, `flat_search`.
    """

    def look(k: int) -> Neighbours:
        return search_without_own(task, queries, search, k)

    exact = retrieval_metrics(
        queries, task.queries.labels, gallery, task.gallery.labels, ks=(1, 5, 10), exclude_rows=task.exclude
    )
    figures: dict[str, Any] = dict(exact.values)
    look(1)  # pages the index in, so that the first k is not timed colder than the others
    found = Neighbours(np.empty((0, 0)), np.empty((0, 0)))
    for k in task.ks:
        started = time.perf_counter()
        found = look(k)
        figures[f"query_seconds@{k}"] = time.perf_counter() - started
    near = min(10, found.rows.shape[1])
    best = drop_rows(flat_search(gallery)(queries, near + 1), task.exclude, near)
    figures["index_recall@10"] = index_recall_at_k(found.rows[:, :near], best.rows)
    asked: np.ndarray = np.asarray(task.queries.attributes.any(axis=1))
    known = np.zeros(len(task.gallery.ids) + 1, dtype=bool)  # row -1, no result, reads the last
    known[:-1] = task.gallery.attributes.any(axis=1)
    agreement = attribute_agreement(task.queries.attributes, task.gallery.attributes, found.rows, ks=task.ks)
    figures |= agreement.values
    for k in task.ks:
        figures[f"attribute_pairs@{k}"] = int(np.logical_and(known[found.rows[:, :k]], asked[:, None]).sum())
    return Measured(figures=clean(figures), found=found, curve=exact.curve)


def measure_reranked(task: Task, before: Measured, found: Neighbours) -> Measured:
    """The figures of the same search with its results in another order."""
    ranked = ranked_metrics(found.rows, task.queries.labels, task.gallery.labels, exclude_rows=task.exclude)
    return Measured(figures=before.figures | clean(dict(ranked.values)), found=found, curve=ranked.curve)


def search_without_own(task: Task, queries: np.ndarray, search: Search, k: int) -> Neighbours:
    """The k nearest of each query, itself left out where it is in the gallery."""
    if not (task.exclude >= 0).any():
        return search(queries, k)
    return drop_rows(search(queries, k + 1), task.exclude, k)


def floors(task: Task) -> dict[str, Any] | None:
    """What guessing and an oracle would score on the same data; None if no query and result both have attributes."""
    if not task.queries.attributes.any() or not task.gallery.attributes.any():
        return None
    return clean(
        attribute_floors(
            task.queries.attributes,
            task.gallery.attributes,
            task.queries.labels,
            task.gallery.labels,
            ks=task.ks,
            exclude_rows=task.exclude,
        )
    )


def clean(figures: dict[str, Any]) -> dict[str, Any]:
    """NaN, which JSON does not have, becomes None."""
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in figures.items()}


def sheet_rows(
    task: Task, found: Neighbours, collection: Folder, *, num_queries: int = 8, seed: int = 0
) -> list[SheetRow]:
    """Queries drawn at random, the same for every system, with their best results and photos."""
    drawn = np.random.default_rng(seed).permutation(len(task.queries.ids))[:num_queries]
    wanted: dict[tuple[int, int], bytes] = {}
    for query in drawn:
        wanted[_place(task.queries, query)] = b""
        for row in found.rows[query, :_SHEET_RESULTS]:
            if row >= 0:
                wanted[_place(task.gallery, row)] = b""
    jpegs = read_jpegs(collection, list(wanted))
    rows = []
    for query in np.sort(drawn):
        label = task.queries.labels[query]
        hits = [
            Hit(
                jpeg=jpegs[_place(task.gallery, row)],
                label=str(task.gallery.labels[row] or "unlabelled"),
                score=float(score),
                right=bool(task.gallery.labels[row] == label),
            )
            for row, score in zip(found.rows[query], found.scores[query][:_SHEET_RESULTS])
            if row >= 0
        ]
        rows.append(SheetRow(jpeg=jpegs[_place(task.queries, query)], label=str(label), hits=hits))
    return rows


def _place(images: Images, row: int) -> tuple[int, int]:
    return int(images.parts[row]), int(images.rows[row])
