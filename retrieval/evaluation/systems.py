"""What an evaluation computes on one machine: a task and its embeddings in, figures and ranked results out.

What is measured (figures) and how long it took (seconds) are kept apart: the first is the same each time.

Memory: the embeddings and attributes of the images measured, nothing of size queries x gallery.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import factory_of
from retrieval.artifacts.manifest import read_manifest
from retrieval.evaluation import tasks
from retrieval.evaluation.attributes import attribute_agreement, attribute_baselines
from retrieval.evaluation.metrics import index_recall_at_k, ranked_metrics, retrieval_metrics
from retrieval.evaluation.settings import System
from retrieval.evaluation.tasks import Images, Task
from retrieval.search import rerank
from retrieval.search.expansion import augment_gallery, expand_by_search
from retrieval.search.index import Searcher, flat_search
from retrieval.search.ranking import Neighbours, Search, drop_rows
from retrieval.search.settings import ExpansionConfig

_RANKED = 1000  # results that a re-ordered list has, at most; positives beyond count as not found

CountInliers = Callable[[Folder, np.ndarray, np.ndarray, Folder | None], np.ndarray]
"""(collection, (Q, 2) places asked, (Q, top, 2) places found, kept features) -> (Q, top) matches:
`rerank.count_inliers`, or the same spread over a cluster."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scoring:
    """How a system is scored beside as it is: with expansion, with an augmented gallery, re-ranked."""

    expansion: ExpansionConfig
    augmentation: ExpansionConfig
    rerank: int = 0
    """The first so many results are put in order of geometry; 0: not."""
    features: Folder | None = None
    """The local features that it goes by, see `geometry.extraction`; None: SIFT, taken of each photo then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One system: its figures, with the keys that reports.tables knows, the neighbours they were read off, the
    precision-recall curve, see `metrics.RetrievalMetrics`, and `query_seconds@K`."""

    figures: dict[str, Any]
    found: Neighbours
    curve: np.ndarray
    seconds: dict[str, float]


def open_index(folder: Folder, gallery: Images) -> Search:
    """A search of a built index, whose rows are rows of `gallery`.

    Raises: ValueError if it does not hold exactly the gallery: other images among the results would change the figures.
    """
    searcher = Searcher.open(folder)
    if not searcher.column("image_id").equals(pa.chunked_array([gallery.ids], pa.string())):
        raise ValueError(
            f"The index {folder} holds {len(searcher)} images, the gallery has {len(gallery.ids)}, and they differ. "
            f"Evaluation needs an index of the gallery alone: python -m ray_jobs.build_index --splits gallery ..."
        )
    return searcher.search


def scored(
    system: System, task: Task, collection: Folder, scoring: Scoring, count: CountInliers = rerank.count_inliers
) -> Iterator[tuple[str, Measured]]:
    """The system as it is, with query expansion, with an augmented gallery, with its results in order of geometry."""
    queries, gallery = (tasks.read_embeddings(system.embeddings, side) for side in (task.queries, task.gallery))
    search = open_index(system.index, task.gallery) if system.index else flat_search(gallery)
    measured = measure(task, queries, gallery, search)
    yield system.name, measured
    if scoring.expansion.num:
        asked = expand_by_search(queries, gallery, search, scoring.expansion, task.exclude)
        yield f"{system.name} + QE", measure(task, asked, gallery, search)
    if scoring.augmentation.num:
        held = augment_gallery(gallery, search, scoring.augmentation)
        yield f"{system.name} + DBA", measure(task, queries, held, flat_search(held))
    if scoring.rerank:
        deep = search_without_own(task, queries, search, min(_RANKED, task.most))
        places = task.gallery.places(deep.rows[:, : scoring.rerank])
        asked = task.queries.places(np.arange(len(task.queries.ids)))
        inliers = count(collection, asked, places, scoring.features)
        yield f"{system.name} + rerank", measure_reranked(task, measured, rerank.rerank(deep, inliers))


def measure(task: Task, queries: np.ndarray, gallery: np.ndarray, search: Search) -> Measured:
    """Score one system.

    Args:
        queries: (Q, D) float32. gallery: (G, D) float32. search: by row of the gallery.
    """
    exact = retrieval_metrics(
        queries, task.queries.labels, gallery, task.gallery.labels, ks=(1, 5, 10), exclude_rows=task.exclude
    )
    found, seconds = _timed(task, queries, search)
    near = min(10, found.rows.shape[1])
    best = drop_rows(flat_search(gallery)(queries, near + 1), task.exclude, near)
    figures: dict[str, Any] = dict(exact.values)
    figures["index_recall@10"] = index_recall_at_k(found.rows[:, :near], best.rows)
    agreement = attribute_agreement(task.queries.attributes, task.gallery.attributes, found.rows, ks=task.ks)
    figures |= agreement.values | _attribute_pairs(task, found)
    return Measured(figures=clean(figures), found=found, curve=exact.curve, seconds=seconds)


def _timed(task: Task, queries: np.ndarray, search: Search) -> tuple[Neighbours, dict[str, float]]:
    """The most neighbours that the task asks for, and the seconds that all queries took for each k."""
    search_without_own(task, queries, search, 1)  # pages the index in: the first k is not timed colder than the others
    found, seconds = Neighbours(np.empty((0, 0)), np.empty((0, 0))), {}
    for k in task.ks:
        started = time.perf_counter()
        found = search_without_own(task, queries, search, k)
        seconds[f"query_seconds@{k}"] = time.perf_counter() - started
    return found, seconds


def _attribute_pairs(task: Task, found: Neighbours) -> dict[str, int]:
    """`attribute_pairs@K`: pairs of a query and one of its first K results of which both have attributes."""
    asked: np.ndarray = np.asarray(task.queries.attributes.any(axis=1))
    known = np.zeros(len(task.gallery.ids) + 1, dtype=bool)  # row -1, no result, reads the last
    known[:-1] = task.gallery.attributes.any(axis=1)
    both = np.logical_and(known[found.rows], asked[:, None])
    return {f"attribute_pairs@{k}": int(both[:, :k].sum()) for k in task.ks}


def measure_reranked(task: Task, before: Measured, found: Neighbours) -> Measured:
    """The figures of the same search with its results in another order."""
    ranked = ranked_metrics(found.rows, task.queries.labels, task.gallery.labels, exclude_rows=task.exclude)
    figures = before.figures | clean(dict(ranked.values))
    return dataclasses.replace(before, figures=figures, found=found, curve=ranked.curve)


def search_without_own(task: Task, queries: np.ndarray, search: Search, k: int) -> Neighbours:
    """The k nearest of each query, itself left out where it is in the gallery."""
    if not (task.exclude >= 0).any():
        return search(queries, k)
    return drop_rows(search(queries, k + 1), task.exclude, k)


def baselines(task: Task) -> dict[str, Any] | None:
    """What guessing and an oracle would score on the same data; None if no query and result both have attributes."""
    if not task.queries.attributes.any() or not task.gallery.attributes.any():
        return None
    return clean(
        attribute_baselines(
            task.queries.attributes,
            task.gallery.attributes,
            task.queries.labels,
            task.gallery.labels,
            ks=task.ks,
            exclude_rows=task.exclude,
        )
    )


def origin(system: System) -> dict[str, Any]:
    """What the manifests tell of a system: how many images were embedded, by which model, and the type of its index."""
    embedded = read_manifest(system.embeddings, "embeddings")
    index = factory_of(read_manifest(system.index, "index")) if system.index else "Flat"
    return {
        "embed_images": embedded.counts["num"],
        "embedding_dim": embedded.counts["dim"],
        "index_type": index,
        "model": read_manifest(system.model).fingerprint,
    }


def embed_seconds(system: System) -> dict[str, Any]:
    """What its embeddings took: the whole step, and summed over its workers; None where the manifest does not say."""
    embedded = read_manifest(system.embeddings, "embeddings")
    told = embedded.counts | embedded.run  # they were among the counts once
    return {"embed_seconds": told.get("seconds"), "embed_seconds_in_model": told.get("seconds_in_model")}


def clean(figures: dict[str, Any]) -> dict[str, Any]:
    """NaN, which JSON does not have, becomes None."""
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in figures.items()}
