"""Ranked lists that do not depend on how they were computed: one fixed score, ties broken by row.

Matrix products of different shapes differ in their last bits, so the same vector can score differently in two shards,
or two copies of a vector can score differently in one. Every exact search here therefore only *proposes* candidates
with a fast product, and ranks them by `inner_products`: summed in float64, rounded once to float32.

Shapes: Q queries, C candidates, N vectors, D dimensions, k neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_BLOCK_ELEMENTS = 1 << 21  # float64 elements gathered at once: 16 MiB, which stays near the cache


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What a search found, best first.

    scores: (Q, k) float32 inner products, descending; -inf where there is no neighbour.
    rows: (Q, k) int64 positions in the index; -1 where there is no neighbour. Equal scores are in order of row.
    """

    scores: np.ndarray
    rows: np.ndarray


Search = Callable[[np.ndarray, int], Neighbours]
"""(queries (Q, D) float32, k) -> the k best of each."""


def as_queries(queries: np.ndarray, dim: int) -> np.ndarray:
    """(Q, dim) float32, contiguous, of queries given as (Q, dim) or (dim,).

    Raises: ValueError for another dimension, or for NaN or infinite values, which have no order.
    """
    array = np.ascontiguousarray(queries, dtype=np.float32)
    array = array[None, :] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1] != dim:
        raise ValueError(
            f"Queries have shape {np.shape(queries)}, expected (num_queries, {dim}): the index holds {dim}-dimensional "
            f"embeddings. Embed the queries with the model the index was made with."
        )
    if not np.isfinite(array).all():
        raise ValueError("Queries hold NaN or infinite values, expected finite embeddings. Check the model's weights.")
    return array


def inner_products(queries: np.ndarray, vectors: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """The one score of a (query, vector) pair, for every candidate.

    Args:
        queries: (Q, D) float32. vectors: (N, D) float32. candidates: (Q, C) int64 rows of `vectors`, -1 for none.

    Returns: (Q, C) float32, summed in float64 and rounded once; -inf for candidate -1.
    """
    num, width = candidates.shape
    out = np.full((num, width), -np.inf, dtype=np.float32)
    if width == 0 or len(vectors) == 0:
        return out
    step = max(1, _BLOCK_ELEMENTS // (width * queries.shape[1]))
    for start in range(0, num, step):
        some = candidates[start : start + step]
        gathered = vectors[np.maximum(some, 0)].astype(np.float64)
        sums = np.einsum("qcd,qd->qc", gathered, queries[start : start + step].astype(np.float64))
        out[start : start + step] = np.where(some >= 0, sums, -np.inf)
    return out


def scan(queries: np.ndarray, vectors: np.ndarray, k: int) -> Neighbours:
    """The exact k best of all `vectors`, equal scores in order of row: no index, each vector looked at.

    Args:
        queries: (Q, D) float32. vectors: (N, D) float32, N may be 0. k: > 0.
    """
    num = len(vectors)
    width = min(k, num)
    if not len(queries) or not width:
        return pad(Neighbours(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)), k)
    margin = 2 * rounding_margin(queries, float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors).max())) * (1 + 1e-6))
    step = max(1, _BLOCK_ELEMENTS // num)
    parts = [_scan(queries[i : i + step], vectors, width, margin[i : i + step]) for i in range(0, len(queries), step)]
    found = Neighbours(np.concatenate([one.scores for one in parts]), np.concatenate([one.rows for one in parts]))
    return pad(found, k)


def _scan(queries: np.ndarray, vectors: np.ndarray, k: int, margin: np.ndarray) -> Neighbours:
    """A fast product proposes whatever may be among the k best, the fixed score ranks it. k: no more than vectors."""
    fast = queries @ vectors.T
    kth = -np.partition(-fast, k - 1, axis=1)[:, k - 1]
    query, row = np.nonzero(fast >= (kth - margin)[:, None])
    counts = np.bincount(query, minlength=len(queries))
    candidates = np.full((len(queries), counts.max()), -1, dtype=np.int64)
    candidates[query, np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)] = row
    return top_k(inner_products(queries, vectors, candidates), candidates, k)


def rounding_margin(queries: np.ndarray, max_norm: float) -> np.ndarray:
    """How far a float32 product may be from `inner_products`: (Q,) float64, >= 0.

    The classic bound n*u*|q|*|x| for a dot product of n terms in any order, u = 2^-24, with room for the last rounding.
    """
    norms = np.linalg.norm(queries.astype(np.float64), axis=1)
    return (queries.shape[1] + 8) * 2.0**-24 * 1.01 * norms * max_norm


def top_k(scores: np.ndarray, rows: np.ndarray, k: int) -> Neighbours:
    """The best k by (score descending, row ascending); -1 rows last. Pads when there are fewer than k candidates.

    Args:
        scores: (Q, C) float32. rows: (Q, C) int64, -1 for none. k: > 0.
    """
    scores = np.where(rows >= 0, scores, np.float32(-np.inf)).astype(np.float32, copy=False)
    order = np.lexsort((rows, -scores), axis=-1)[:, :k]
    best = Neighbours(np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1))
    return pad(best, k)


def pad(found: Neighbours, k: int) -> Neighbours:
    """Widen to k columns with score -inf, row -1."""
    missing = k - found.rows.shape[1]
    if missing <= 0:
        return found
    return Neighbours(
        np.pad(found.scores, ((0, 0), (0, missing)), constant_values=-np.inf),
        np.pad(found.rows, ((0, 0), (0, missing)), constant_values=-1),
    )


def merge_top_k(parts: Sequence[Neighbours], k: int) -> Neighbours:
    """The best k of what several shards found for the same queries, as if one index had been searched.

    Raises: ValueError if there is nothing to merge.
    """
    if not parts:
        raise ValueError("Nothing to merge: expected the results of at least one shard, got none.")
    scores = np.concatenate([part.scores for part in parts], axis=1)
    rows = np.concatenate([part.rows for part in parts], axis=1)
    return top_k(scores, rows, k)


def drop_rows(found: Neighbours, exclude_rows: np.ndarray, k: int) -> Neighbours:
    """Take row exclude_rows[i] (itself, in leave-one-out) out of query i's list, keep k. Search k + 1 before.

    Args:
        exclude_rows: (Q,) int64, -1 for queries that exclude nothing.
    """
    excluded = np.asarray(exclude_rows, dtype=np.int64)
    if excluded.shape != (len(found.rows),):
        raise ValueError(f"exclude_rows has shape {excluded.shape}, expected ({len(found.rows)},): one row a query.")
    return top_k(found.scores, np.where(found.rows == excluded[:, None], -1, found.rows), k)
