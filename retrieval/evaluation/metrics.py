"""How good a ranking is: recall, average precision with junk, precision at k, and curves of precision over recall.

Every function works on blocks of queries, so that nothing of size queries x gallery is ever held. Scores are inner
products in float64 rounded to float32, ties in order of row, as in the index: the figures do not depend on block sizes.
A query with no positive in the gallery has no recall and no precision: it is left out of the means, and counted.

Shapes: Q queries, G gallery items, K results a query, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.evaluation.pieces.ranks import Positives, count_before, scores_of

_BLOCK_ELEMENTS = 1 << 22  # query-gallery pairs looked at at once: 32 MiB of float64


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalMetrics:
    """Means over the queries that have a positive.

    values: `recall@K` for each K asked for, and `mAP`; NaN where no query has a positive.
    num_queries, num_without_positive: all queries, and those of them left out of the means.
    average_precision: (Q,) float64, NaN for those left out.
    first_hit: (Q,) int64, zero-based rank of the first positive, -1 for those left out; beyond every K where a list
    cut short holds none.
    curve: (101,) float64, interpolated precision at recall 0, 0.01 ... 1: of each query, the best precision at that
    recall or beyond; NaN where no query has a positive.
    """

    values: dict[str, float]
    num_queries: int
    num_without_positive: int
    average_precision: np.ndarray
    first_hit: np.ndarray
    curve: np.ndarray


class Labels:
    """Of which label each query and each gallery row is, by number, -1 for none, and what a query is not asked of.

    queries: (Q,) int64. gallery: (G,) int64. sizes: (codes,) int64, gallery rows of each. exclude: (Q,) int64.
    """

    def __init__(self, queries: np.ndarray, gallery: np.ndarray, exclude: np.ndarray | None) -> None:
        self.queries, self.gallery = queries, gallery
        self.sizes = np.bincount(gallery[gallery >= 0], minlength=int(max(queries.max(initial=-1), 0)) + 1)
        self.exclude = np.full(len(queries), -1, dtype=np.int64) if exclude is None else exclude


@dataclass(slots=True)
class Tally:
    """What is known of each query so far, as `RetrievalMetrics` has it; `curve` is a sum over the queries."""

    average_precision: np.ndarray
    first_hit: np.ndarray
    curve: np.ndarray

    @classmethod
    def of(cls, num_queries: int) -> Tally:
        return cls(np.full(num_queries, np.nan), np.full(num_queries, -1, dtype=np.int64), np.zeros(101))

    def add(self, queries: np.ndarray, query: np.ndarray, ranks: np.ndarray) -> None:
        """Queries (n,) whose ranking is known: (P,) `query`, an index into them, and the rank of each positive."""
        order = np.lexsort((ranks, query))
        query, ranks = query[order], ranks[order]
        counts = np.bincount(query, minlength=len(queries))
        begins = np.cumsum(counts) - counts
        areas = _precision_areas(ranks, np.arange(len(ranks)) - begins[query])
        some = np.flatnonzero(counts)
        self.average_precision[queries[some]] = np.bincount(query, areas, minlength=len(queries))[some] / counts[some]
        self.first_hit[queries[some]] = ranks[begins[some]]
        curves = (interpolated_precision(ranks[begins[q] : begins[q] + counts[q]], counts[q]) for q in some)
        self.curve += sum(curves, 0.0)

    def add_lists(self, queries: np.ndarray, rows: np.ndarray, labels: Labels, ks: Sequence[int]) -> None:
        """Queries (n,) of which a list is known, (n, K) int64 gallery rows, best first, -1 for none; positives that it
        misses count as not found."""
        missed = max(rows.shape[1], *ks)  # beyond every k asked for
        for query, found in zip(queries, rows, strict=True):
            code, own = labels.queries[query], labels.exclude[query]
            total = 0 if code < 0 else int(labels.sizes[code]) - int(own >= 0 and labels.gallery[own] == code)
            if total <= 0:
                continue
            kept = found[(found >= 0) & (found != own)]
            ranks = np.flatnonzero(labels.gallery[kept] == code)
            self.average_precision[query] = average_precision(ranks, total)
            self.first_hit[query] = ranks[0] if len(ranks) else missed
            self.curve += interpolated_precision(ranks, total)

    def means(self, ks: Sequence[int]) -> RetrievalMetrics:
        used = self.first_hit >= 0
        nothing = float("nan")
        values = {f"recall@{k}": float((self.first_hit[used] < k).mean()) if used.any() else nothing for k in ks}
        values["mAP"] = float(self.average_precision[used].mean()) if used.any() else nothing
        return RetrievalMetrics(
            values=values,
            num_queries=len(used),
            num_without_positive=int((~used).sum()),
            average_precision=self.average_precision,
            first_hit=self.first_hit,
            curve=self.curve / used.sum() if used.any() else np.full(101, np.nan),
        )


def average_precision(ranks: np.ndarray | Sequence[int], num_positives: int) -> float:
    """Area under the precision-recall curve by trapezoids, as the Oxford5k tool computes it.

    AP = sum_j (1 / num_positives) * (p0 + p1) / 2, with p0 = j / r_j (1 if r_j = 0) and p1 = (j + 1) / (r_j + 1).

    Args:
        ranks: zero-based junk-free ranks of the positives that were found; see `junk_free_ranks`.
        num_positives: all positives of the ground truth, > 0, also those that a truncated list misses.

    Example:
        >>> round(average_precision([0, 2, 5], num_positives=4), 7)
        0.5083333
    """
    ranks = np.sort(np.asarray(ranks, dtype=np.int64))
    if num_positives < max(1, len(ranks)):
        raise ValueError(f"num_positives is {num_positives}, expected at least 1 and no fewer than {len(ranks)} found.")
    return float(_precision_areas(ranks, np.arange(len(ranks))).sum() / num_positives)


def _precision_areas(ranks: np.ndarray, j: np.ndarray) -> np.ndarray:
    before = np.where(ranks == 0, 1.0, j / np.maximum(ranks, 1))
    return (before + (j + 1) / (ranks + 1)) / 2


def junk_free_ranks(ranking: np.ndarray, positives: np.ndarray, junk: np.ndarray | Sequence[int] = ()) -> np.ndarray:
    """Zero-based ranks of the positives in a ranking from which junk was taken out first, ascending.

    Args:
        ranking: (K,) gallery rows, best first; -1 (no result) is taken out like junk.
        positives, junk: gallery rows.
    """
    ranking = np.asarray(ranking)
    kept = ranking[~np.isin(ranking, junk) & (ranking >= 0)]
    return np.flatnonzero(np.isin(kept, positives))


def precision_at_k(ranks: np.ndarray, k: int) -> float:
    """mP@k of one query: precision at min(k, 1-based rank of the last positive).

    Args:
        ranks: zero-based junk-free ranks of its positives, at least one.
    """
    depth = min(k, int(np.max(ranks)) + 1)
    return float(np.sum(np.asarray(ranks) < depth) / depth)


def interpolated_precision(ranks: np.ndarray, num_positives: int) -> np.ndarray:
    """(101,) best precision at recall 0, 0.01 ... 1 or beyond; 0 at a recall that the ranking does not reach.

    Args: ranks: (n,) zero-based ranks of the positives found, ascending, n <= num_positives.
    """
    precision = (np.arange(len(ranks)) + 1) / (np.asarray(ranks) + 1)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], np.zeros(num_positives - len(ranks) + 1))
    needed = np.ceil(np.arange(101) * num_positives / 100 - 1e-9).astype(np.int64)  # positives that make this recall
    return best[np.maximum(needed - 1, 0)]


def precision_recall(ranks: Sequence[np.ndarray], num_positives: Sequence[int]) -> np.ndarray:
    """(101,) `interpolated_precision`, mean over the queries that have a positive; NaN if none has.

    Args:
        ranks: of each query, the zero-based junk-free ranks of the positives that were found, ascending.
        num_positives: of each query, all its positives, also those not found.

    Example:
        >>> curve = precision_recall([np.array([0, 3])], [2])
        >>> curve[[0, 50, 51, 100]].tolist()
        [1.0, 1.0, 0.5, 0.5]
    """
    curves = [interpolated_precision(found, total) for found, total in zip(ranks, num_positives, strict=True) if total]
    return np.mean(curves, axis=0) if curves else np.full(101, np.nan)


def index_recall_at_k(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact search's neighbours that an approximate search found too; both (Q, k) rows, -1 for none."""
    if found.shape != exact.shape:
        raise ValueError(f"found has shape {found.shape}, exact {exact.shape}; expected the same queries and k.")
    wanted = exact >= 0
    width = int(max(found.max(initial=0), exact.max(initial=0))) + 1
    query = np.arange(len(exact))[:, None] * width
    common = np.isin((exact + query)[wanted], (found + query)[found >= 0])
    return float(common.sum() / max(1, wanted.sum()))


def retrieval_metrics(
    queries: np.ndarray,
    query_labels: Sequence[str | None] | np.ndarray,
    gallery: np.ndarray,
    gallery_labels: Sequence[str | None] | np.ndarray,
    *,
    ks: Sequence[int] = (1, 5, 10),
    exclude_rows: np.ndarray | None = None,
) -> RetrievalMetrics:
    """Recall@k and mAP over the full ranking of the gallery, exactly.

    Args:
        queries: (Q, D) float32. gallery: (G, D) float32. Any length; compared by inner product.
        query_labels, gallery_labels: Q and G labels; None matches nothing.
        exclude_rows: (Q,) int64, a gallery row per query taken out of its ranking, -1 for none.
    """
    query_codes, gallery_codes = label_codes(query_labels, gallery_labels)
    _check(queries, query_codes, gallery, gallery_codes)
    excluded = np.full(len(queries), -1) if exclude_rows is None else np.asarray(exclude_rows, dtype=np.int64)
    tally, positives, columns = Tally.of(len(queries)), Positives(gallery_codes), np.arange(len(gallery))
    for start, end in blocks(len(queries), len(gallery)):
        asked, without = queries[start:end], excluded[start:end]
        query, row = positives.pairs(query_codes[start:end], without)
        pairs = (query, scores_of(asked, gallery, query, row), row)
        tally.add(np.arange(start, end), query, count_before(asked, gallery, columns, without, *pairs))
    return tally.means(ks)


def leave_one_out(
    embeddings: np.ndarray, labels: Sequence[str | None] | np.ndarray, *, ks: Sequence[int] = (1, 5, 10)
) -> RetrievalMetrics:
    """`retrieval_metrics` where every image queries all the others."""
    return retrieval_metrics(embeddings, labels, embeddings, labels, ks=ks, exclude_rows=np.arange(len(embeddings)))


def ranked_metrics(
    rows: np.ndarray,
    query_labels: Sequence[str | None] | np.ndarray,
    gallery_labels: Sequence[str | None] | np.ndarray,
    *,
    ks: Sequence[int] = (1, 5, 10),
    exclude_rows: np.ndarray | None = None,
) -> RetrievalMetrics:
    """`retrieval_metrics` of rankings made elsewhere. Positives that a list cut short misses count as not found.

    Args: rows: (Q, K) int64 gallery rows, best first, -1 for none.
    """
    labels, tally = Labels(*label_codes(query_labels, gallery_labels), exclude_rows), Tally.of(len(rows))
    tally.add_lists(np.arange(len(rows)), rows, labels, ks)
    return tally.means(ks)


def _check(queries: np.ndarray, query_codes: np.ndarray, gallery: np.ndarray, gallery_codes: np.ndarray) -> None:
    if queries.shape != (len(query_codes), *gallery.shape[1:]) or len(gallery) != len(gallery_codes):
        raise ValueError(
            f"{queries.shape} queries with {len(query_codes)} labels and {gallery.shape} gallery embeddings with "
            f"{len(gallery_codes)} labels do not fit; expected (Q, D) with Q labels and (G, D) with G labels."
        )


def label_codes(
    query_labels: Sequence[str | None] | np.ndarray, gallery_labels: Sequence[str | None] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Equal labels get equal numbers >= 0; None gets -1. Labels that are numbers stay as they are."""
    if all(isinstance(labels, np.ndarray) and labels.dtype.kind == "i" for labels in (query_labels, gallery_labels)):
        return np.asarray(query_labels, dtype=np.int64), np.asarray(gallery_labels, dtype=np.int64)
    numbers: dict[object, int] = {}
    coded = [
        np.array([-1 if label is None else numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.int64)
        for labels in (query_labels, gallery_labels)
    ]
    return coded[0], coded[1]


def blocks(num_queries: int, width: int) -> Iterator[tuple[int, int]]:
    step = max(1, _BLOCK_ELEMENTS // max(1, width))
    for start in range(0, num_queries, step):
        yield start, min(start + step, num_queries)


def mean_or_nan(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
