"""Scores on the landmark benchmarks: mAP and mP@k of revisited Oxford and Paris (easy, medium, hard) and of the classic
ones, from embeddings that come in blocks.

The ranking itself is never made. A positive's rank is the number of images before it, so the few images that a query's
lists name are scored first, and then all others are only counted: those above each positive. Memory is that of a block
of scores and of the lists, whatever the size of the gallery and of the distractors (a million, say).

Images with equal scores come in order of gallery row, as everywhere; distractors come after all gallery images.

Radenovic, Iscen, Tolias, Avrithis, Chum: Revisiting Oxford and Paris (arXiv:1803.11285); Philbin et al., 2007 and 2008.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.evaluation.ground_truth import GroundTruth
from retrieval.evaluation.metrics import average_precision, blocks, precision_at_k, precision_recall

KAPPAS = (1, 5, 10)

PARTIAL = "partial "
"""Put before the name of each metric of a benchmark of which images were missing."""

FULL_SIZES = {"roxford5k": 4993, "rparis6k": 6322, "oxford5k": 5062, "paris6k": 6392}
"""Gallery images of the published benchmarks. The classic text files do not name them all, so that a folder with some
of the photos would pass for the whole. (Oxford's folder has 5,063, one of which some copies lack.)"""

Gallery = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]
"""Makes an iterator of (rows (B,) of the ground truth's gallery, embeddings (B, D)); asked for anew for each pass."""

Distractors = Callable[[], Iterator[np.ndarray]]
"""Makes an iterator of embeddings (B, D) of images that answer no query."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What a published system reaches, in percent: multi-scale, learned whitening, no expansion."""

    system: str
    oxford5k: float
    paris6k: float
    roxford5k: tuple[float, float]
    """medium, hard."""
    rparis6k: tuple[float, float]

    def of(self, benchmark: str) -> dict[str, float]:
        """{protocol: mAP in percent}; empty for a benchmark that nobody published."""
        if benchmark in ("oxford5k", "paris6k"):
            return {"classic": self.oxford5k if benchmark == "oxford5k" else self.paris6k}
        if benchmark not in ("roxford5k", "rparis6k"):
            return {}
        return dict(zip(("medium", "hard"), self.roxford5k if benchmark == "roxford5k" else self.rparis6k, strict=True))


PUBLISHED = (
    Published(system="VGG16-GeM", oxford5k=87.9, paris6k=87.7, roxford5k=(61.9, 33.7), rparis6k=(69.3, 44.3)),
    Published(system="ResNet101-GeM", oxford5k=87.8, paris6k=92.7, roxford5k=(64.7, 38.5), rparis6k=(77.2, 56.3)),
)

RANDOM_MAP = {
    "roxford5k": {"easy": 0.98, "medium": 1.66, "hard": 0.78},
    "rparis6k": {"easy": 1.70, "medium": 4.05, "hard": 2.49},
}
"""mAP of a random ranking, in percent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkResult:
    """Scores of one system on one benchmark.

    values: `mAP/medium`, `mP@10/hard` and so on, from 0 to 1, means over the queries that have a positive (NaN if none
    has). Where images are missing, each name begins with PARTIAL: such figures compare with no others.
    num_queries: protocol -> queries in its means.
    num_missing, num_missing_queries: images of the ground truth that no block brought, and queries without embedding.
    num_distractors: images that answer no query and are no part of the ground truth.
    average_precision: protocol -> (Q,) float64, NaN for queries left out.
    curves: protocol -> (101,) precision at recall 0, 0.01 ... 1.
    """

    benchmark: str
    values: dict[str, float]
    num_queries: dict[str, int]
    num_gallery: int
    num_missing: int
    num_missing_queries: int
    num_distractors: int
    average_precision: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]

    @property
    def complete(self) -> bool:
        """Whether all images of the benchmark were there."""
        return not self.num_missing and not self.num_missing_queries


def protocols(truth: GroundTruth) -> dict[str, tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]]:
    """Protocol -> (positives, junk), one array of gallery rows a query.

    easy: easy, with hard as junk. medium: easy and hard. hard: hard, with easy as junk. classic: good and ok.
    """
    easy, hard, junk = truth.easy, truth.hard, truth.junk
    if truth.classic:
        return {"classic": (easy, junk)}
    return {
        "easy": (easy, _joined(junk, hard)),
        "medium": (_joined(easy, hard), junk),
        "hard": (hard, _joined(junk, easy)),
    }


def _joined(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    return tuple(np.union1d(*pair) for pair in zip(first, second, strict=True))


def in_blocks(vectors: np.ndarray, size: int = 4096, rows: np.ndarray | None = None) -> Gallery:
    """A gallery held in memory, in the ground truth's order (or with its `rows`), as `score` wants it."""
    rows = np.arange(len(vectors)) if rows is None else rows
    return lambda: ((rows[start : start + size], vectors[start : start + size]) for start in range(0, len(rows), size))


def score(
    truth: GroundTruth,
    queries: np.ndarray,
    gallery: Gallery,
    distractors: Distractors | None = None,
    *,
    known: np.ndarray | None = None,
    kappas: Sequence[int] = KAPPAS,
) -> BenchmarkResult:
    """mAP and mP@k of each protocol; equal to those of the whole ranking by score.

    Args:
        queries: (Q, D) float32, in the order of the ground truth.
        gallery: asked for two passes. Rows that no block brings are missing: the positives among them count as not
            found, and the result says so.
        known: (Q,) bool, False for queries that have no embedding: they are left out, and counted.

    Raises: ValueError if shapes do not fit, or a row comes twice.
    """
    if queries.ndim != 2 or len(queries) != len(truth.queries):
        raise ValueError(f"queries have shape {queries.shape}, expected ({len(truth.queries)}, D) for {truth.name}.")
    asked = np.ones(len(queries), dtype=bool) if known is None else np.asarray(known, dtype=bool)
    exact = queries.astype(np.float64)
    named, seen = _score_named(truth, exact, gallery)
    for rows, vectors in gallery():
        _count(named, exact, rows, vectors)
    num_distractors = 0
    for vectors in distractors() if distractors is not None else ():
        _count(named, exact, np.arange(len(vectors)) + len(seen) + num_distractors, vectors)
        num_distractors += len(vectors)
    found = {name: _figures(named, asked, *lists, kappas) for name, lists in protocols(truth).items()}
    return _result(truth, found, seen, asked, num_distractors)


@dataclass(slots=True)
class _Named:
    """What one query's lists name, and what was counted for it.

    rows: (n,) int64, ascending. scores: (n,) float32, -inf until it came. above: (n,) images outside the lists that
    come before each.
    """

    rows: np.ndarray
    scores: np.ndarray
    above: np.ndarray


def _score_named(truth: GroundTruth, exact: np.ndarray, gallery: Gallery) -> tuple[list[_Named], np.ndarray]:
    """First pass: scores of the images that the lists name, and (G,) bool, which images came."""
    lists = [np.sort(np.concatenate(rows)) for rows in zip(truth.easy, truth.hard, truth.junk, strict=True)]
    named = [_Named(r, np.full(len(r), -np.inf, np.float32), np.zeros(len(r), np.int64)) for r in lists]
    seen = np.zeros(len(truth.gallery), dtype=bool)
    for rows, vectors in gallery():
        _check_block(truth, exact, rows, vectors, seen)
        seen[rows] = True
        position = np.full(len(seen), -1)
        position[rows] = np.arange(len(rows))
        for query, own in zip(exact, named, strict=True):
            here = np.flatnonzero(position[own.rows] >= 0)
            if len(here):
                own.scores[here] = vectors[position[own.rows[here]]].astype(np.float64) @ query
    return named, seen


def _check_block(
    truth: GroundTruth, exact: np.ndarray, rows: np.ndarray, vectors: np.ndarray, seen: np.ndarray
) -> None:
    if vectors.shape != (len(rows), exact.shape[1]):
        raise ValueError(
            f"A gallery block of {len(rows)} rows has embeddings of shape {vectors.shape}, the queries have "
            f"{exact.shape[1]} dimensions. Embed both with the same model."
        )
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(seen):
        raise ValueError(f"A gallery block has rows {rows.min()} to {rows.max()}; {truth.name} has {len(seen)} images.")
    if seen[rows].any() or len(np.unique(rows)) != len(rows):
        raise ValueError(f"An image of {truth.name} comes twice in the gallery blocks. Give each embedding once.")


def _count(named: Sequence[_Named], exact: np.ndarray, rows: np.ndarray, vectors: np.ndarray) -> None:
    """Add to each named image's count the images of a block that come before it and that the query does not name.

    rows: (B,) places in the order that settles ties.
    """
    if vectors.shape[1:] != exact.shape[1:]:
        raise ValueError(f"Embeddings have shape {vectors.shape}, the queries have {exact.shape[1]} dimensions.")
    wide = vectors.astype(np.float64).T
    for start, end in blocks(len(exact), len(rows)):
        scores = (exact[start:end] @ wide).astype(np.float32)
        for own, line in zip(named[start:end], scores, strict=True):
            outside = ~np.isin(rows, own.rows)
            others, places = line[outside], rows[outside]
            ordered = np.sort(others)
            after = np.searchsorted(ordered, own.scores, side="right")
            own.above += len(others) - after
            for tied in np.flatnonzero(np.searchsorted(ordered, own.scores, side="left") < after):
                own.above[tied] += np.count_nonzero(places[others == own.scores[tied]] < own.rows[tied])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Figures:
    """One protocol: `mAP`, `mP@K`; the queries in these means; (Q,) average precision, NaN for others; the curve."""

    values: dict[str, float]
    num_queries: int
    average_precision: np.ndarray
    curve: np.ndarray


def _figures(
    named: Sequence[_Named],
    asked: np.ndarray,
    positives: Sequence[np.ndarray],
    junk: Sequence[np.ndarray],
    kappas: Sequence[int],
) -> _Figures:
    used = [query for query in np.flatnonzero(asked).tolist() if len(positives[query])]
    ranks = [_ranks(named[query], positives[query], junk[query]) for query in used]
    totals = [len(positives[query]) for query in used]
    precision = np.full(len(named), np.nan)
    precision[used] = [average_precision(found, total) for found, total in zip(ranks, totals, strict=True)]
    values = {"mAP": _mean(precision[used].tolist())}
    for kappa in kappas:
        values[f"mP@{kappa}"] = _mean([precision_at_k(found, kappa) if len(found) else 0.0 for found in ranks])
    return _Figures(
        values=values,
        num_queries=len(used),
        average_precision=precision,
        curve=precision_recall(ranks, totals),
    )


def _ranks(named: _Named, positives: np.ndarray, junk: np.ndarray) -> np.ndarray:
    """Zero-based junk-free ranks of the positives that came, ascending."""
    kept = np.isfinite(named.scores) & ~np.isin(named.rows, junk)
    scores, rows, above = named.scores[kept], named.rows[kept], named.above[kept]
    assert np.isin(rows, positives).all(), "what the lists name is positive or junk in every protocol"
    order = np.lexsort((rows, -scores))
    return above[order] + np.arange(len(order))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _result(
    truth: GroundTruth, found: Mapping[str, _Figures], seen: np.ndarray, asked: np.ndarray, num_distractors: int
) -> BenchmarkResult:
    short = max(0, FULL_SIZES.get(truth.name, 0) - len(seen))
    missing, missing_queries = int((~seen).sum()) + short, int((~asked).sum())
    prefix = PARTIAL if missing or missing_queries else ""
    return BenchmarkResult(
        benchmark=truth.name,
        values={
            f"{prefix}{name}/{protocol}": value
            for protocol, figures in found.items()
            for name, value in figures.values.items()
        },
        num_queries={protocol: figures.num_queries for protocol, figures in found.items()},
        num_gallery=int(seen.sum()),
        num_missing=missing,
        num_missing_queries=missing_queries,
        num_distractors=num_distractors,
        average_precision={protocol: figures.average_precision for protocol, figures in found.items()},
        curves={protocol: figures.curve for protocol, figures in found.items()},
    )
