"""Words, and an inverted file that ranks as dense tf-idf does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from retrieval.geometry.vocabulary import InvertedFile, Quantiser, candidate_pairs, train_words


def dense_cosines(words: Sequence[np.ndarray], num_words: int) -> np.ndarray:
    """sqrt(tf) idf, words in more than 30 % of the photos left out unless those are 100 or fewer; then cosines."""
    counts = np.zeros((len(words), num_words))
    for row, own in enumerate(words):
        np.add.at(counts[row], own, 1)
    photos_with = (counts > 0).sum(axis=0)
    weight = np.sqrt(counts) * np.log(len(words) / np.maximum(photos_with, 1))
    weight[:, (photos_with > 100) & (photos_with > 0.3 * len(words))] = 0
    weight /= np.maximum(np.linalg.norm(weight, axis=1, keepdims=True), 1e-12)
    return weight @ weight.T


@pytest.mark.parametrize(("num", "k"), [(25, 6), (25, 40), (25, 1), (380, 6)])
def test_the_inverted_file_ranks_as_dense_tf_idf_does(num: int, k: int) -> None:
    """Word 0 is in most photos: of 380 in more than 100, where it is left out."""
    rng = np.random.default_rng(0)
    words = [
        np.concatenate([rng.integers(1, 60, size=rng.integers(5, 40)), np.zeros(int(rng.random() < 0.8), int)])
        for _ in range(num)
    ]
    cosines, file = dense_cosines(words, 60), InvertedFile.build(words, 60)
    assert file.num_photos == num
    for row in range(min(num, 40)):
        rows, scores = file.nearest(row, k)
        assert row not in rows
        assert np.allclose(scores, cosines[row, rows], atol=1e-6)
        others = np.delete(np.arange(num), row)
        expected = np.sort(cosines[row, others])[::-1][:k]
        assert np.allclose(scores, expected[expected > 1e-9], atol=1e-6)


def test_equal_photos_come_in_the_order_of_their_rows_and_unlike_ones_not_at_all() -> None:
    """However few are asked for: with many photos only the likely ones are sorted."""
    words = [np.array([number % 4]) for number in range(80)]
    file = InvertedFile.build(words, 5)
    same = [row for row in range(1, 80) if row % 4 == 1 and row != 5]
    for k in (1, 3, 7, 15, 19, 60):
        rows, scores = file.nearest(5, k)
        assert rows.tolist() == same[:k]
        assert np.allclose(scores, 1)
    alone = InvertedFile.build([np.array([0]), np.array([1]), np.empty(0, np.int64)], 2)
    assert [len(alone.nearest(row, 2)[0]) for row in range(3)] == [0, 0, 0]


def test_a_word_is_left_out_where_many_have_it_and_they_are_more_than_a_hundred() -> None:
    def kept(num_with: int, num: int) -> bool:
        words = [np.array([0] * (row < num_with) + [1 + row % 7]) for row in range(num)]
        return 0 in InvertedFile.build(words, 8).own

    assert kept(100, 120) and not kept(101, 120)  # 101 of 120 are more than 30 %
    assert kept(120, 400) and not kept(121, 400)


def test_pairs_have_the_smaller_row_first_and_are_those_of_the_photos_asked_for() -> None:
    rng = np.random.default_rng(4)
    words = [rng.integers(0, 30, size=12) for _ in range(20)]
    file = InvertedFile.build(words, 30)
    for photo in (0, 7, 19):
        found = list(candidate_pairs(file, [photo], 3))
        assert found == [(min(photo, other), max(photo, other)) for other in file.nearest(photo, 3)[0].tolist()]
    assert list(candidate_pairs(file, [3, 4], 2)) == [
        *candidate_pairs(file, [3], 2),
        *candidate_pairs(file, [4], 2),
    ]
    assert list(candidate_pairs(InvertedFile.build([], 4), [], 2)) == []


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
