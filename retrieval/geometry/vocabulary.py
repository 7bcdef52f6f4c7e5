"""Bags of visual words: which photographs may show the same things, without comparing all pairs   (Sivic & Zisserman).

Local descriptors are quantised to words by k-means (FAISS). A photo is the histogram of its words, of which the mean of
all photos is taken and what is left is turned to its principal axes, so that words that come together, or are missed
together, speak once (Jegou & Chum, ECCV 2012). The few numbers that remain are searched exhaustively.
"""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
from scipy import linalg

_ITERATIONS = 12

AXES = 1024
"""Numbers that a photo's histogram becomes, at most."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """What histograms are looked at along. mean: (K,) float32. axes: (K, D) float32, orthonormal, the longest first."""

    mean: np.ndarray
    axes: np.ndarray

    @classmethod
    def of(cls, histograms: np.ndarray, num: int = AXES) -> Axes:
        """Principal axes of (n, K) histograms: `num` of them, or as many as there are."""
        mean = histograms.mean(axis=0, dtype=np.float64)
        apart = histograms - mean
        wide = len(apart) < apart.shape[1]  # the smaller of the two products has the same axes
        product = apart @ apart.T if wide else apart.T @ apart
        last = len(product) - 1
        spread, axes = linalg.eigh(product, subset_by_index=(max(0, last - num + 1), last))
        spread, axes = np.asarray(spread)[::-1], np.asarray(axes)[:, ::-1]
        kept = np.flatnonzero(spread > max(1e-9 * spread[0], 1e-12))
        if not len(kept):  # all alike: along one axis that says nothing
            return cls(mean=mean.astype(np.float32), axes=np.zeros((len(mean), 1), np.float32))
        axes = axes[:, kept]
        if wide:
            axes = apart.T @ (axes / np.sqrt(spread[kept]))
        return cls(mean=mean.astype(np.float32), axes=np.ascontiguousarray(axes, np.float32))

    def look(self, histograms: np.ndarray) -> np.ndarray:
        """(n, K) -> (n, D + 1) float32: D of norm 1 and 0; or, where a photo has no word, D zeros and -1."""
        along = (histograms - self.mean) @ self.axes
        along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
        nothing = ~histograms.any(axis=1, keepdims=True)
        return np.hstack([np.where(nothing, np.float32(0), along), -nothing.astype(np.float32)])


def nearest(vectors: np.ndarray, photos: range, k: int) -> np.ndarray:
    """The k photos most like each of a range of them: (n, 2) int32 pairs, the smaller row first, each once.

    Photos without words are like none. Takes no copy of the vectors, which all tasks of a machine share.

    Args: vectors: (N, D + 1) float32 of `Axes.look`.
    """
    asked = np.arange(photos.start, photos.stop)
    asked = asked[vectors[asked, -1] == 0]
    k = min(k, len(vectors) - 1)
    if not len(asked) or not k:
        return np.empty((0, 2), np.int32)
    queries = vectors[asked]
    queries[:, -1] = _FAR
    scores, found = faiss.knn(queries, vectors, k + 1, metric=faiss.METRIC_INNER_PRODUCT)
    scores[found == asked[:, None]] = -np.inf  # a photo itself comes last, or is not there: of k + 1, k are others
    order = np.lexsort((found, -scores), axis=1)[:, :k]
    other, kept = np.take_along_axis(found, order, axis=1), np.take_along_axis(scores, order, axis=1) > 1 - _FAR
    pairs = np.stack([np.repeat(asked, k), other.ravel()], axis=1)[kept.ravel()]
    return np.unique(np.sort(pairs, axis=1), axis=0).astype(np.int32)
