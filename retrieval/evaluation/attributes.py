"""How far the attributes of results agree with the query's, and what that is worth: baselines and a ceiling.

A ranking that does not beat a random pair has learnt nothing, and none can beat the oracle. CelebA has 40 attributes,
most of them rare, so that a random pair already agrees on 73 % of them.

Shapes: Q queries, G gallery items, K results a query, A attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.evaluation.metrics import blocks, label_codes, mean_or_nan


@dataclass(frozen=True, kw_only=True, slots=True)
class AttributeAgreement:
    """Means over the queries whose attributes are known.

    values: `attribute_accuracy@K` and `attribute_distance@K` for each K asked for. K beyond the number of results is
    clipped to it (the key keeps the K asked for).
    num_queries, num_without_attributes: all queries, and those of them left out of the means.
    """

    values: dict[str, float]
    num_queries: int
    num_without_attributes: int


def attribute_agreement(
    query_attributes: np.ndarray, gallery_attributes: np.ndarray, rows: np.ndarray, *, ks: Sequence[int]
) -> AttributeAgreement:
    """Accuracy and distance of the results' attributes to the query's, mean over the k results, then over queries.

    Accuracy of a result = matching attributes / A; distance = sum |a_query - a_result| / A, which for values -1 and 1
    is 2 (1 - accuracy).

    Args:
        query_attributes: (Q, A) int8, -1 or 1; a row of zeros is an image whose attributes are not known.
        gallery_attributes: (G, A) int8, the same.
        rows: (Q, K) int64 results, best first; -1 for none. Results without attributes count neither way.
    """
    accuracy, distance = attributes_of(query_attributes, gallery_attributes, rows, ks=ks)
    return AttributeAgreement(
        values=agreement_values(accuracy, distance, ks),
        num_queries=len(rows),
        num_without_attributes=int((~query_attributes.any(axis=1)).sum()),
    )


def agreement_values(accuracy: np.ndarray, distance: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    """`AttributeAgreement.values` of what `attributes_of` found."""
    values = {f"attribute_accuracy@{k}": mean_or_nan(accuracy[:, i]) for i, k in enumerate(ks)}
    return values | {f"attribute_distance@{k}": mean_or_nan(distance[:, i]) for i, k in enumerate(ks)}


def attributes_of(
    query_attributes: np.ndarray, gallery_attributes: np.ndarray, rows: np.ndarray, *, ks: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """(Q, ks) accuracy and distance of each query, NaN where nothing is known; args as `attribute_agreement`."""
    check_attributes(query_attributes)
    check_attributes(gallery_attributes)
    num_attributes = query_attributes.shape[1]
    known = np.asarray(gallery_attributes.any(axis=1))
    used = np.asarray(query_attributes.any(axis=1))
    accuracy, distance = np.full((len(rows), len(ks)), np.nan), np.full((len(rows), len(ks)), np.nan)
    if not known.any() or not used.any():
        return accuracy, distance
    for start, end in blocks(len(rows), rows.shape[1] * num_attributes):
        some = rows[start:end]
        theirs, mine = gallery_attributes[np.maximum(some, 0)], query_attributes[start:end, None, :]
        counts = (some >= 0) & known[np.maximum(some, 0)] & used[start:end, None]
        matching = np.equal(theirs, mine).sum(axis=2) / num_attributes
        apart = np.abs(theirs.astype(np.int16) - mine).sum(axis=2) / num_attributes
        for column, k in enumerate(ks):
            num = counts[:, :k].sum(axis=1)
            divisor = np.where(num > 0, num, np.nan)
            accuracy[start:end, column] = (matching * counts)[:, :k].sum(axis=1) / divisor
            distance[start:end, column] = (apart * counts)[:, :k].sum(axis=1) / divisor
    return accuracy, distance


def attribute_baselines(
    query_attributes: np.ndarray,
    gallery_attributes: np.ndarray,
    query_labels: Sequence[str | None] | np.ndarray,
    gallery_labels: Sequence[str | None] | np.ndarray,
    *,
    ks: Sequence[int],
    exclude_rows: np.ndarray | None = None,
) -> dict[str, float]:
    """Mean attribute accuracy of what knows nothing of the photos, and of an oracle; exactly, without drawing samples.

    Over the queries with known attributes.

    Args:
        query_attributes: (Q, A) int8, -1 or 1; zeros where not known. gallery_attributes: (G, A) int8, the same.
        query_labels, gallery_labels: Q and G identities; None matches nothing.
        ks: for the oracle; clipped to the gallery.
        exclude_rows: (Q,) int64, a gallery row per query that it is not compared with (itself), -1 for none.

    Returns:
        random_pair: the query and any gallery image.
        majority_vector: the query and each attribute's commoner value in the gallery.
        same_identity_pair: the query and any gallery image of its identity; only queries that have one.
        oracle@K: the query and the K gallery images that agree most with it: no ranking does better.
        NaN for what no query has. The distance that belongs to accuracy x is 2 (1 - x).
    """
    check_attributes(query_attributes)
    check_attributes(gallery_attributes)
    query_codes, gallery_codes = label_codes(query_labels, gallery_labels)
    excluded = np.full(len(query_codes), -1) if exclude_rows is None else np.asarray(exclude_rows, dtype=np.int64)
    asked, known = query_attributes.any(axis=1), gallery_attributes.any(axis=1)
    position = np.append(np.where(known, np.cumsum(known) - 1, -1), -1)  # the last entry answers for row -1
    mine, theirs = query_attributes[asked].astype(np.float32), gallery_attributes[known].astype(np.float32)
    without = position[excluded[asked]]
    query_codes, gallery_codes = query_codes[asked], gallery_codes[known]
    majority = np.where(theirs.sum(axis=0) > 0, 1, -1)
    return {
        "random_pair": _group_mean(mine, theirs, np.zeros(len(mine), int), np.zeros(len(theirs), int), without),
        "majority_vector": float((mine == majority).mean()) if mine.size and theirs.size else float("nan"),
        "same_identity_pair": _group_mean(mine, theirs, query_codes, gallery_codes, without),
        **_oracle(mine, theirs, without, ks),
    }


def _group_mean(
    mine: np.ndarray, theirs: np.ndarray, query_codes: np.ndarray, gallery_codes: np.ndarray, without: np.ndarray
) -> float:
    """Mean accuracy of each query with all gallery items of its code, mean over queries that have one.

    Since accuracy = (1 + q.g / A) / 2 for values -1 and 1, the mean over items needs only the sum of their vectors.
    """
    num_codes = int(max(query_codes.max(initial=-1), gallery_codes.max(initial=-1))) + 1
    sums, counts = np.zeros((num_codes + 1, mine.shape[1])), np.zeros(num_codes + 1)
    matched = gallery_codes >= 0
    np.add.at(sums, gallery_codes[matched], theirs[matched])
    np.add.at(counts, gallery_codes[matched], 1)
    total, number = sums[query_codes], counts[query_codes]  # code -1 reads the last row, which is empty
    own = np.flatnonzero((without >= 0) & (query_codes >= 0))
    own = own[gallery_codes[without[own]] == query_codes[own]]
    total[own] -= theirs[without[own]]
    number[own] -= 1
    some = number > 0
    agreement = np.einsum("qa,qa->q", mine[some], total[some]) / number[some] / mine.shape[1]
    return float(np.mean((1 + agreement) / 2)) if some.any() else float("nan")


def _oracle(mine: np.ndarray, theirs: np.ndarray, without: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    """There are only A + 1 numbers of matching attributes, so a histogram a query replaces sorting its gallery."""
    num_attributes = mine.shape[1]
    sums = np.zeros((len(mine), len(ks)))
    available = len(theirs) - (without >= 0)
    for start, end in blocks(len(mine), len(theirs)):
        matches = ((num_attributes + mine[start:end] @ theirs.T) / 2).astype(np.int64)
        cell = np.arange(end - start)[:, None] * (num_attributes + 1)
        size = (end - start) * (num_attributes + 1)
        histogram = np.bincount((matches + cell).ravel(), minlength=size).reshape(end - start, -1)
        own = np.flatnonzero(without[start:end] >= 0)
        histogram[own, matches[own, without[start:end][own]]] -= 1
        best_first = np.cumsum(histogram[:, ::-1], axis=1)
        for column, k in enumerate(ks):
            taken = np.diff(np.minimum(best_first, k), axis=1, prepend=0)
            sums[start:end, column] = taken @ np.arange(num_attributes, -1, -1)
    some = available > 0
    depth = np.minimum(available[some, None], np.asarray(ks)[None, :])
    means = (sums[some] / depth).mean(axis=0) / num_attributes if some.any() else np.full(len(ks), np.nan)
    return {f"oracle@{k}": float(mean) for k, mean in zip(ks, means, strict=True)}


def check_attributes(attributes: np.ndarray) -> None:
    if attributes.ndim != 2 or (attributes.size and not -1 <= attributes.min() <= attributes.max() <= 1):
        raise ValueError(
            f"Attributes have shape {attributes.shape} and dtype {attributes.dtype}, expected (N, A) of -1 and 1, "
            f"with a row of zeros where they are not known."
        )
