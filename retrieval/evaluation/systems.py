"""What an evaluation computes on one machine: a task and its embeddings in, figures and ranked results out.

What is measured (figures) and how long it took (seconds) are kept apart: the first is the same each time.

Memory: a block of queries with their results, and of every image of the gallery a few numbers; see `pieces`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import factory_of
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.progress import Progress, silent
from retrieval.evaluation import tasks
from retrieval.evaluation.attributes import agreement_values, attribute_baselines, attributes_of
from retrieval.evaluation.metrics import Labels, Tally, index_recall_at_k
from retrieval.evaluation.pieces.gallery import Gallery, Spread, here
from retrieval.evaluation.pieces.ranks import Positives
from retrieval.evaluation.settings import System
from retrieval.evaluation.tasks import Task
from retrieval.search import rerank
from retrieval.search.expansion import augment_gallery, expand
from retrieval.search.index import flat_search
from retrieval.search.ranking import Neighbours, Search, drop_rows
from retrieval.search.settings import ExpansionConfig

_RANKED = 1000  # results that a re-ordered list has, at most; positives beyond count as not found
_QUERIES = 1 << 13  # that are asked together, with a thousand results each: 200 MB
_PAIRS = 1 << 22  # of a query and a positive, of those: 100 MB
_SHOWN = 10  # results of each query that are kept to look at
_GATHERED = 1 << 26  # numbers of neighbours' embeddings that are held at once: 256 MB

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
    """One system: its figures, with the keys that reports.tables knows, the first ten neighbours of each query, the
    precision-recall curve, see `metrics.RetrievalMetrics`, and `query_seconds@K`."""

    figures: dict[str, Any]
    found: Neighbours
    curve: np.ndarray
    seconds: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """What one system's figures are worked out of. asked: positions of queries (n,) -> (n, D) float32, what they ask
    with."""

    task: Task
    asked: Callable[[np.ndarray], np.ndarray]
    gallery: Gallery
    progress: Progress = silent

    def blocks(self) -> Iterator[np.ndarray]:
        """Positions of the queries, (n,) int64 ascending, as many as one process holds with their results and their
        positives, neighbours on storage together."""
        queries = self.task.queries
        order = np.lexsort((queries.rows, queries.parts))
        sizes = np.maximum(Positives(self.task.gallery.codes).counts(queries.codes[order]), _PAIRS // _QUERIES)
        block, done = np.cumsum(sizes) // _PAIRS, 0
        for some in np.split(order, np.flatnonzero(np.diff(block)) + 1) if len(order) else ():
            self.progress("queries", done, len(order))
            yield np.sort(some)
            done += len(some)

    def without_own(self, some: np.ndarray, search: Search, queries: np.ndarray, k: int) -> Neighbours:
        """The k nearest of each query, itself left out where it is in the gallery. Args: some: (n,) their positions."""
        return drop_own(search(queries, k + int(self.task.asks_itself)), self.task, some, k)


def drop_own(found: Neighbours, task: Task, some: np.ndarray, k: int) -> Neighbours:
    """What queries found, themselves left out. Args: found: k results, and one more where queries ask themselves."""
    return drop_rows(found, task.exclude[some], k) if task.asks_itself else found


def gallery_of(system: System, task: Task, spread: Spread = here, *, exact: bool = False) -> Gallery:
    """A system's embeddings of the gallery, and its index of it. Args: exact: leave the index alone.

    Raises: ValueError if the index holds others than the gallery.
    """
    dim = read_manifest(system.embeddings, "embeddings").counts["dim"]
    return Gallery.of(task.gallery, system.embeddings, dim, None if exact else system.index, spread)


def scored(
    system: System,
    task: Task,
    collection: Folder,
    scoring: Scoring,
    count: CountInliers = rerank.count_inliers,
    spread: Spread = here,
    progress: Progress = silent,
) -> Iterator[tuple[str, Measured]]:
    """The system as it is, with query expansion, with an augmented gallery, with its results in order of geometry."""

    def embedded(some: np.ndarray) -> np.ndarray:
        return tasks.read_embeddings(system.embeddings, task.queries.take(some))

    asking = Asking(task=task, asked=embedded, gallery=gallery_of(system, task, spread), progress=progress)
    measured = measure(asking)
    yield system.name, measured
    if scoring.expansion.num:
        asked = functools.partial(_expanded, asking, system.embeddings, scoring.expansion)
        yield f"{system.name} + QE", measure(dataclasses.replace(asking, asked=asked))
    if scoring.augmentation.num:  # each vector takes on others of all the gallery: it is held whole
        vectors = tasks.read_embeddings(system.embeddings, task.gallery)
        search = asking.gallery.search if system.index else flat_search(vectors)
        held = Gallery.held(augment_gallery(vectors, search, scoring.augmentation))
        yield f"{system.name} + DBA", measure(dataclasses.replace(asking, gallery=held))
    if scoring.rerank:
        yield f"{system.name} + rerank", measure_reranked(asking, measured, collection, scoring, count)


def _expanded(asking: Asking, embeddings: Folder, config: ExpansionConfig, some: np.ndarray) -> np.ndarray:
    queries, gallery = asking.asked(some), asking.task.gallery
    num = min(config.num, asking.task.most)
    found = asking.without_own(some, asking.gallery.search, queries, num)
    out, step = np.empty_like(queries), max(1, _GATHERED // (num * queries.shape[1]))
    for start in range(0, len(some), step):
        mine = slice(start, start + step)
        near = Neighbours(found.scores[mine], found.rows[mine])
        rows, at = np.unique(np.maximum(near.rows, 0), return_inverse=True)
        vectors = tasks.read_embeddings(embeddings, gallery.take(rows))
        scores = np.where(near.rows >= 0, near.scores, -np.inf)
        out[mine] = expand(queries[mine], vectors[at.reshape(near.rows.shape)], scores, config.alpha)
    return out


def measure(asking: Asking) -> Measured:
    """Score one system, a block of queries at a time."""
    task, gallery = asking.task, asking.gallery
    num, near = len(task.queries), min(10, task.ks[-1])
    tally, positives = Tally.of(num), Positives(task.gallery.codes)
    results = _Results.of(num, min(_SHOWN, task.ks[-1]), near, task.ks)
    for some in asking.blocks():
        queries, own = asking.asked(some), task.exclude[some]
        query, row = positives.pairs(task.queries.codes[some], own)
        ranks, best = gallery.rank(queries, own, query, row, near + int(task.asks_itself))
        tally.add(some, query, ranks)
        found, took = _timed(asking, queries, some)
        results.add(some, found, took, drop_own(best, task, some, near), task)
    exact = tally.means((1, 5, 10))
    figures: dict[str, Any] = dict(exact.values)
    figures["index_recall@10"] = index_recall_at_k(results.found.rows[:, :near], results.best)
    figures |= agreement_values(results.accuracy, results.distance, task.ks)
    figures |= {f"attribute_pairs@{k}": pairs for k, pairs in zip(task.ks, results.pairs.tolist(), strict=True)}
    return Measured(figures=clean(figures), found=results.found, curve=exact.curve, seconds=results.seconds)


@dataclass(slots=True)
class _Results:
    """Of all queries what their results say, and of each the first few.

    found: (Q, _SHOWN) neighbours. best: (Q, near) rows, exactly the nearest. accuracy, distance: (Q, ks), see
    `attributes_of`. pairs: (ks,) int64 pairs of a query and one of its first k results of which both have attributes.
    """

    found: Neighbours
    best: np.ndarray
    accuracy: np.ndarray
    distance: np.ndarray
    pairs: np.ndarray
    seconds: dict[str, float]

    @classmethod
    def of(cls, num: int, shown: int, near: int, ks: Sequence[int]) -> _Results:
        found = _none(num, shown)
        accuracy, distance = (np.full((num, len(ks)), np.nan) for _ in range(2))
        best, pairs = np.full((num, near), -1, np.int64), np.zeros(len(ks), np.int64)
        return cls(found, best, accuracy, distance, pairs, {f"query_seconds@{k}": 0.0 for k in ks})

    def add(self, some: np.ndarray, found: Neighbours, took: dict[int, float], best: Neighbours, task: Task) -> None:
        self.found.scores[some], self.found.rows[some] = found.scores[:, :_SHOWN], found.rows[:, :_SHOWN]
        self.best[some] = best.rows
        asked = task.queries.attributes[some]
        self.accuracy[some], self.distance[some] = attributes_of(asked, task.gallery.attributes, found.rows, ks=task.ks)
        known: np.ndarray = np.asarray(task.gallery.attributes.any(axis=1))[np.maximum(found.rows, 0)]
        both = (found.rows >= 0) & known & np.asarray(asked.any(axis=1))[:, None]
        self.pairs += [int(both[:, :k].sum()) for k in task.ks]
        for k in task.ks:
            self.seconds[f"query_seconds@{k}"] += took[k]


def _none(num: int, width: int) -> Neighbours:
    return Neighbours(np.full((num, width), -np.inf, np.float32), np.full((num, width), -1, np.int64))


def _timed(asking: Asking, queries: np.ndarray, some: np.ndarray) -> tuple[Neighbours, dict[int, float]]:
    """The most neighbours that the task asks for, and the seconds that these queries took for each k."""
    more = int(asking.task.asks_itself)
    found, seconds = asking.gallery.timed(queries, [k + more for k in asking.task.ks])
    return drop_own(found, asking.task, some, asking.task.ks[-1]), {k - more: took for k, took in seconds.items()}


def measure_reranked(
    asking: Asking, before: Measured, collection: Folder, scoring: Scoring, count: CountInliers
) -> Measured:
    """The figures of the same search with the first of its results in another order."""
    task = asking.task
    labels = Labels(task.queries.codes, task.gallery.codes, task.exclude)
    tally, ks, depth = Tally.of(len(task.queries)), (1, 5, 10), min(_RANKED, task.most)
    shown = _none(len(task.queries), min(_SHOWN, depth))
    for some in asking.blocks():
        deep = asking.without_own(some, asking.gallery.search, asking.asked(some), depth)
        places = task.gallery.places(deep.rows[:, : scoring.rerank])
        inliers = count(collection, task.queries.places(some), places, scoring.features)
        found = rerank.rerank(deep, inliers)
        tally.add_lists(some, found.rows, labels, ks)
        shown.scores[some], shown.rows[some] = found.scores[:, :_SHOWN], found.rows[:, :_SHOWN]
    ranked = tally.means(ks)
    figures = before.figures | clean(dict(ranked.values))
    return dataclasses.replace(before, figures=figures, found=shown, curve=ranked.curve)


def baselines(task: Task) -> dict[str, Any] | None:
    """What guessing and an oracle would score on the same data; None if no query and result both have attributes."""
    if not task.queries.attributes.any() or not task.gallery.attributes.any():
        return None
    return clean(
        attribute_baselines(
            task.queries.attributes,
            task.gallery.attributes,
            task.queries.codes,
            task.gallery.codes,
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
