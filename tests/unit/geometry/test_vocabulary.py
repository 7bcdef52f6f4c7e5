"""Words, histograms less their mean, and the photos that are most alike."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.geometry.vocabulary import Quantiser, apart, histogram, nearest, train_words


def test_a_histogram_is_the_roots_of_each_word_s_part() -> None:
    found = histogram(np.array([3, 1, 3, 3]), 5)
    assert found.dtype == np.float32 and np.allclose(found, np.sqrt([0, 0.25, 0, 0.75, 0]))
    assert histogram(np.empty(0, np.int32), 5).tolist() == [0] * 5


def histograms_of(num: int, num_words: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([histogram(rng.integers(0, num_words, rng.integers(1, 40)), num_words) for _ in range(num)])


def test_photos_are_as_alike_as_their_histograms_less_the_mean() -> None:
    histograms = histograms_of(30, 50)
    mean = histograms.mean(axis=0)
    exact = (histograms - mean).astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    found = apart(histograms, mean)
    assert found.dtype == np.float16 and found.shape == (30, 51) and not found[:, -1].any()
    assert np.allclose(found.astype(np.float32) @ found.astype(np.float32).T, exact @ exact.T, atol=2e-3)


def test_a_photo_without_words_lies_nowhere_and_photos_that_are_all_alike_say_nothing() -> None:
    histograms = histograms_of(9, 20)
    histograms[4] = 0
    found = apart(histograms, histograms.mean(axis=0)).astype(np.float32)
    assert not found[4, :-1].any() and found[:, -1].tolist() == [-float(row == 4) for row in range(9)]
    assert np.allclose(np.linalg.norm(np.delete(found, 4, axis=0), axis=1), 1, atol=1e-3)
    same = np.repeat(histograms[:1], 3, axis=0)
    assert apart(same, same[0])[:, -1].tolist() == [-1] * 3 and not apart(same, same[0])[:, :-1].any()


@pytest.mark.parametrize("tile", [7, 1 << 13])
@pytest.mark.parametrize(("num", "k"), [(40, 6), (40, 60), (7, 6), (2, 1), (1, 3)])
def test_the_nearest_are_those_of_the_slow_definition(num: int, k: int, tile: int) -> None:
    """Photos 5 and 11 have no words: they are near to none, and none is to them."""
    vectors = np.random.default_rng(0).standard_normal((num, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    nothing = [at for at in (5, 11) if at < num]
    vectors[nothing], vectors[:, -1] = 0, 0  # the last says whether there is anything
    vectors[nothing, -1] = -1
    before = vectors.copy()
    for photos in (range(num), range(num // 2, num), range(3, 3)):
        wanted = set()
        for photo in photos:
            if photo not in nothing:
                others = [other for other in range(num) if other != photo and other not in nothing]
                best = sorted(others, key=lambda other: -float(vectors[photo] @ vectors[other]))[:k]
                wanted |= {(min(photo, other), max(photo, other)) for other in best}
        slices = ((start, vectors[start : start + tile]) for start in range(0, num, tile))
        found = nearest(photos.start, vectors[photos.start : photos.stop], slices, num, k)
        assert found.dtype == np.int32 and [tuple(pair) for pair in found.tolist()] == sorted(wanted)
    assert np.array_equal(vectors, before)


def test_of_photos_that_are_the_same_each_has_the_others() -> None:
    """However many lie at the same place, none is its own neighbour."""
    vectors = np.repeat(np.eye(3, 4, dtype=np.float32), 4, axis=0)
    found = nearest(0, vectors, [(0, vectors[:5]), (5, vectors[5:])], 12, 3)
    assert [tuple(pair) for pair in found.tolist()] == [
        (a, b) for a in range(12) for b in range(a + 1, 12) if a // 4 == b // 4
    ]


def test_words_are_the_nearest_centroids() -> None:
    rng = np.random.default_rng(1)
    sample = rng.integers(0, 255, size=(600, 128)).astype(np.uint8)
    words = train_words(sample, 40, seed=3)
    assert words.shape == (40, 128) and words.dtype == np.float32
    apart = ((sample[:50, None, :].astype(np.float64) - words[None]) ** 2).sum(axis=2)
    assigned = Quantiser(words).assign(sample[:50])
    assert assigned.tolist() == apart.argmin(axis=1).tolist() and assigned.dtype == np.int32
    assert Quantiser(words).assign(sample[:0]).shape == (0,)
    assert Quantiser(words).assign(sample[:1]).tolist() == assigned[:1].tolist()


def test_words_are_means_that_depend_on_the_seed_alone() -> None:
    """Three heaps of descriptors far apart: k-means finds them, whatever it begins with."""
    rng = np.random.default_rng(1)
    sample = np.repeat([20, 120, 220], 40)[:, None] + rng.integers(-9, 9, (120, 128))
    words = train_words(sample.astype(np.uint8), 3, seed=3)
    expected = np.stack([sample[start : start + 40].mean(axis=0) for start in (0, 40, 80)])
    assert np.allclose(words[np.argsort(words[:, 0])], expected, atol=0.01)
    flat = rng.integers(0, 255, size=(600, 128)).astype(np.uint8)
    assert np.array_equal(train_words(flat, 40, seed=3), train_words(flat, 40, seed=3))
    assert not np.array_equal(train_words(flat, 40, seed=3), train_words(flat, 40, seed=4))


@pytest.mark.parametrize(("num", "wanted", "words"), [(200, 40, 40), (200, 80, 50), (7, 40, 1), (2, 5, 1)])
def test_a_word_has_four_descriptors_on_average_or_more(num: int, wanted: int, words: int) -> None:
    sample = np.random.default_rng(1).integers(0, 255, size=(num, 128)).astype(np.uint8)
    assert train_words(sample, wanted).shape == (words, 128)
