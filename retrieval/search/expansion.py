"""Query expansion: a query takes on what its nearest neighbours have in common, and asks again.

alpha query expansion (Radenovic et al., arXiv:1711.02512, sec. 3.4); with alpha 0 it is average query expansion (Chum
et al., 2007); applied to the gallery itself it is database-side augmentation (Arandjelovic & Zisserman, 2012).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from retrieval.search.ranking import Neighbours, Search, drop_rows, top_k
from retrieval.search.settings import ExpansionConfig

_BLOCK = 1024  # queries expanded at once: bounds the neighbours' vectors that are gathered


def expand(queries: np.ndarray, neighbours: np.ndarray, scores: np.ndarray, alpha: float = 3.0) -> np.ndarray:
    """q' = l2(q + sum_i max(q . x_i, 0)^alpha x_i).

    Args:
        queries: (Q, D) float32. neighbours: (Q, n, D) float32. scores: (Q, n) float, their inner products with the
            query; -inf where there is no neighbour.

    Returns: (Q, D) float32, unit norm.

    Example:
        >>> out = expand(np.array([[1.0, 0.0]]), np.array([[[0.8, 0.6]]]), np.array([[0.8]]), alpha=0)
        >>> out.astype(float).round(4).tolist()
        [[0.9487, 0.3162]]
    """
    positive = np.where(np.isfinite(scores), np.maximum(scores, 0.0), 0.0)
    weights = np.where(np.isfinite(scores), positive**alpha, 0.0)  # 0^0 = 1: alpha 0 counts all, found ones only
    total = queries.astype(np.float64) + np.einsum("qn,qnd->qd", weights, neighbours.astype(np.float64))
    return (total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def expand_found(
    queries: np.ndarray, found: Neighbours, vectors_of: Callable[[np.ndarray], np.ndarray], alpha: float
) -> np.ndarray:
    """`expand` with what a search found, wherever the gallery's vectors lie.

    Args:
        queries: (Q, D) float32. vectors_of: rows (Q, n) int64, each 0 or more -> their vectors (Q, n, D) float32.
    """
    vectors = vectors_of(np.maximum(found.rows, 0))
    return expand(queries, vectors, np.where(found.rows >= 0, found.scores, -np.inf), alpha)


def expand_by_search(
    queries: np.ndarray,
    gallery: np.ndarray,
    search: Search,
    config: ExpansionConfig,
    exclude: np.ndarray | None = None,
) -> np.ndarray:
    """`expand` with what a search of the gallery finds, a block of queries at a time.

    Args:
        queries: (Q, D) float32. gallery: (G, D) float32, whose rows the search returns.
        exclude: (Q,) int64, a gallery row that each query does not take on (itself), -1 for none.
    """
    if not config.num:
        return queries
    out = np.empty_like(queries)
    without = np.full(len(queries), -1, dtype=np.int64) if exclude is None else exclude
    leaving_out = bool((without >= 0).any())
    for start in range(0, len(queries), _BLOCK):
        some = slice(start, start + _BLOCK)
        found = search(queries[some], min(config.num + leaving_out, len(gallery)))
        if leaving_out:
            found = drop_rows(found, without[some], min(config.num, len(gallery) - 1))
        out[some] = expand_found(queries[some], found, gallery.__getitem__, config.alpha)
    return out


def expand_by_blocks(queries: np.ndarray, blocks: Iterable[np.ndarray], config: ExpansionConfig) -> np.ndarray:
    """`expand` with the exact nearest of a gallery that comes in blocks, of which only the nearest so far are held.

    Of equal scores the first to come is taken.

    Args: queries: (Q, D) float32. blocks: (B, D) float32 each; together at least `config.num` rows, or all are taken.
    """
    if not config.num:
        return queries
    num, dim = queries.shape
    exact = queries.astype(np.float64)
    scores = np.full((num, config.num), -np.inf, dtype=np.float32)
    vectors = np.zeros((num, config.num, dim), dtype=np.float32)
    for block in blocks:
        both = np.concatenate([scores, (exact @ block.astype(np.float64).T).astype(np.float32)], axis=1)
        best = top_k(both, np.where(np.isfinite(both), np.arange(both.shape[1]), -1), config.num)
        query, place = np.nonzero(best.rows >= config.num)
        if not len(query):
            continue
        vectors = np.take_along_axis(vectors, np.clip(best.rows, 0, config.num - 1)[:, :, None], axis=1)
        vectors[query, place] = block[best.rows[query, place] - config.num]
        scores = best.scores
    return expand(queries, vectors, scores, config.alpha)


def augment_gallery(gallery: np.ndarray, search: Search, config: ExpansionConfig) -> np.ndarray:
    """Database-side augmentation: every gallery vector takes on its own neighbours, itself left out. (G, D) float32."""
    return expand_by_search(gallery, gallery, search, config, exclude=np.arange(len(gallery), dtype=np.int64))
