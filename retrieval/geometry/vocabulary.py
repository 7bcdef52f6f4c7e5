"""Bags of visual words: which photographs may show the same things, without comparing all pairs   (Sivic & Zisserman).

Local descriptors are quantised to words by k-means (FAISS); a photo is its words weighted by tf-idf; an inverted file
gives every photo the few others that share most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import faiss
import numpy as np

_ITERATIONS = 12

_MAX_POSTINGS = 0.3  # a word in more than this part of the photos costs time and says little

_FEW = 100  # unless those are few


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


@dataclass(frozen=True, kw_only=True, slots=True)
class InvertedFile:
    """Photos by word: those of word w are rows[starts[w]:starts[w + 1]], with their tf-idf weights.

    Photo i has words `own[own_starts[i]:own_starts[i + 1]]`. Every photo's weights have norm 1.
    """

    starts: np.ndarray
    rows: np.ndarray
    weights: np.ndarray
    own_starts: np.ndarray
    own: np.ndarray
    own_weights: np.ndarray

    @classmethod
    def build(cls, words: Sequence[np.ndarray], num_words: int) -> InvertedFile:
        """Args: words: of each photo, its descriptors' words (n_i,) int. Words that most photos have are left out."""
        counted = [np.unique(own, return_counts=True) for own in words]
        row = np.repeat(np.arange(len(words)), [len(names) for names, _ in counted])
        word = np.concatenate([names for names, _ in counted] or [np.empty(0)]).astype(np.int64)
        count = np.concatenate([counts for _, counts in counted] or [np.empty(0)]).astype(np.float64)
        photos_with = np.bincount(word, minlength=num_words)
        idf = np.log(max(1, len(words)) / np.maximum(photos_with, 1))
        kept = photos_with[word] <= max(_FEW, _MAX_POSTINGS * len(words))
        row, word = row[kept], word[kept]
        weight = np.sqrt(count[kept]) * idf[word]  # square roots keep a repeated pattern from speaking for the photo
        norm = np.sqrt(np.bincount(row, weight**2, minlength=len(words)))
        weight = (weight / np.maximum(norm[row], 1e-12)).astype(np.float32)
        order = np.argsort(word, kind="stable")
        return cls(
            starts=np.searchsorted(word[order], np.arange(num_words + 1)),
            rows=row[order].astype(np.int32),
            weights=weight[order],
            own_starts=np.searchsorted(row, np.arange(len(words) + 1)),
            own=word.astype(np.int32),
            own_weights=weight,
        )

    @property
    def num_photos(self) -> int:
        return len(self.own_starts) - 1

    def nearest(self, photo: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k photos most like one of them, itself left out: rows (<= k,) and cosines, best first, ties by row."""
        mine = slice(self.own_starts[photo], self.own_starts[photo + 1])
        scores = np.zeros(self.num_photos, dtype=np.float32)
        for word, weight in zip(self.own[mine], self.own_weights[mine], strict=True):
            postings = slice(self.starts[word], self.starts[word + 1])
            scores[self.rows[postings]] += weight * self.weights[postings]
        scores[photo] = 0.0
        best = np.lexsort((np.arange(len(scores)), -scores))[:k] if len(scores) <= 4 * k else _top(scores, k)
        best = best[scores[best] > 0]
        return best, scores[best]


def _top(scores: np.ndarray, k: int) -> np.ndarray:
    likely = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
    return likely[np.lexsort((likely, -scores[likely]))][:k]


def candidate_pairs(file: InvertedFile, photos: Sequence[int], k: int) -> Iterator[tuple[int, int]]:
    """Pairs worth a geometric check: each of `photos` with its k nearest, the smaller row first; may repeat."""
    for photo in photos:
        for other in file.nearest(photo, k)[0]:
            yield min(photo, int(other)), max(photo, int(other))
