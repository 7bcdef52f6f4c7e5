"""Bags of visual words: which photographs may show the same things, without comparing all pairs   (Sivic & Zisserman).

Local descriptors are quantised to words by k-means (FAISS). A photo is the histogram of its words less the mean of all
photos; what remains is searched exhaustively, slice by slice.
"""

from __future__ import annotations

from collections.abc import Iterable

import faiss
import numpy as np

_ITERATIONS = 12

_FAR = 4.0  # what a photo without words is less than others, whose cosines are -1 to 1


def train_words(descriptors: np.ndarray, num_words: int, seed: int = 0) -> np.ndarray:
    """k-means of a sample of descriptors: (n, 128) uint8 -> (K, 128) float32 words, K at most n / 4."""
    sample = np.ascontiguousarray(descriptors, dtype=np.float32)
    words = max(1, min(num_words, len(sample) // 4))
    kmeans = faiss.Kmeans(
        sample.shape[1], words, niter=_ITERATIONS, seed=seed, min_points_per_centroid=1, max_points_per_centroid=256
    )
    kmeans.train(sample)
    assert kmeans.centroids is not None
    return np.asarray(kmeans.centroids, dtype=np.float32).reshape(words, -1)


class Quantiser:
    """Nearest word of a descriptor."""

    def __init__(self, words: np.ndarray) -> None:
        """Args: words: (K, 128) float32."""
        self._index = faiss.IndexFlatL2(words.shape[1])
        self._index.add(np.ascontiguousarray(words, dtype=np.float32))

    def assign(self, descriptors: np.ndarray) -> np.ndarray:
        """(n, 128) uint8 -> (n,) int32."""
        if not len(descriptors):
            return np.empty(0, dtype=np.int32)
        return self._index.search(np.ascontiguousarray(descriptors, dtype=np.float32), 1)[1][:, 0].astype(np.int32)


def histogram(words: np.ndarray, num_words: int) -> np.ndarray:
    """(n,) int -> (K,) float32, the square roots of each word's part of all: norm 1, or 0 where there is no word.

    The square root keeps a repeated pattern from speaking for the photo.
    """
    counts = np.bincount(words, minlength=num_words)
    return np.sqrt(counts / max(1, len(words))).astype(np.float32)


def apart(histograms: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(n, K) -> (n, K + 1) float16: what is left without the mean, of norm 1, and 0; where a photo has no word, or is
    like the mean, K zeros and -1.

    Words that a photo lacks and others have then speak too (Jegou & Chum, ECCV 2012).
    """
    left = histograms - mean
    norms = np.linalg.norm(left, axis=1, keepdims=True)
    nothing = ~histograms.any(axis=1, keepdims=True) | (norms < 1e-6)
    left = np.where(nothing, np.float32(0), left / np.maximum(norms, 1e-12))
    return np.hstack([left, -nothing.astype(np.float32)]).astype(np.float16)


def nearest(start: int, vectors: np.ndarray, gallery: Iterable[tuple[int, np.ndarray]], num: int, k: int) -> np.ndarray:
    """The k photos most like each of some: (n, 2) int32 pairs, the smaller row first, each once.

    Photos without words are like none.

    Args:
        start, vectors: the row of the first, and (m, K + 1) float16 of `apart` of it and those behind it.
        gallery: the row where each slice begins, and its vectors; `num` in all.
    """
    has = vectors[:, -1] == 0
    asked, queries = start + np.flatnonzero(has), vectors[has].astype(np.float32)
    k = min(k, num - 1)
    if not len(asked) or not k:
        return np.empty((0, 2), np.int32)
    queries[:, -1] = _FAR
    scores, found = np.empty((len(asked), 0), np.float32), np.empty((len(asked), 0), np.int64)
    for first, some in gallery:
        more = _nearest_from(queries, first, some, k + 1)
        scores, found = (np.hstack(columns) for columns in zip((scores, found), more, strict=True))
        best = np.lexsort((found, -scores), axis=1)[:, : k + 1]
        scores, found = (np.take_along_axis(columns, best, axis=1) for columns in (scores, found))
    scores[found == asked[:, None]] = -np.inf  # a photo itself comes last, or is not there: of k + 1, k are others
    order = np.lexsort((found, -scores), axis=1)[:, :k]
    other, kept = np.take_along_axis(found, order, axis=1), np.take_along_axis(scores, order, axis=1) > 1 - _FAR
    pairs = np.stack([np.repeat(asked, k), other.ravel()], axis=1)[kept.ravel()]
    return np.unique(np.sort(pairs, axis=1), axis=0).astype(np.int32)


def _nearest_from(queries: np.ndarray, start: int, some: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and rows, (n, <= k) each, of the most alike in one slice."""
    scores, found = faiss.knn(queries, some.astype(np.float32), min(k, len(some)), metric=faiss.METRIC_INNER_PRODUCT)
    return scores, found + start
