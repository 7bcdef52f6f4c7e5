"""Pairs are drawn by people: weights are probabilities of such a draw, and memory keeps to its bound."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from retrieval.evaluation.calibration.pairs import different_pairs, same_pairs


def some(seed: int, sizes: list[int], dim: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of people with so many photos each, in any order; numbers of people have gaps."""
    random = np.random.default_rng(seed)
    people = random.permutation(np.repeat(3 * np.arange(len(sizes)) + 1, sizes))
    vectors = random.normal(size=(len(people), dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), people


def share_by_hand(vectors: np.ndarray, people: np.ndarray, threshold: float, same: bool) -> float:
    """The mean over people, or pairs of people, of the share of their pairs of photos that reach the threshold."""
    hits = defaultdict(list)
    for i in range(len(people)):
        for j in range(i):
            if (people[i] == people[j]) == same:
                key = (min(people[i], people[j]), max(people[i], people[j]))
                hits[key].append(float(vectors[i] @ vectors[j]) >= threshold)
    return float(np.mean([np.mean(each) for each in hits.values()]))


@pytest.mark.parametrize("seed", range(5))
def test_all_pairs_weigh_what_a_draw_by_people_gives_them(seed: int) -> None:
    sizes = list(np.random.default_rng(seed).integers(1, 5, size=9))
    vectors, people = some(seed, sizes)
    for threshold in (-0.2, 0.1, 0.3):
        for same, pairs in ((True, same_pairs(vectors, people)), (False, different_pairs(vectors, people))):
            found = pairs.weights[pairs.scores >= threshold].sum()
            assert found == pytest.approx(share_by_hand(vectors, people, threshold, same), abs=1e-9)
    assert different_pairs(vectors, people).people == len(sizes)
    assert same_pairs(vectors, people).people == sum(size > 1 for size in sizes)


def test_scores_fall_and_belong_to_their_pairs() -> None:
    vectors, people = some(1, [3, 2, 4])
    pairs = different_pairs(vectors, people)
    assert (np.diff(pairs.scores) <= 0).all() and (pairs.first != pairs.second).all()
    real = {
        (min(people[i], people[j]), max(people[i], people[j]), round(float(vectors[i] @ vectors[j]), 5))
        for i in range(len(people))
        for j in range(i)
        if people[i] != people[j]
    }
    found = zip(pairs.first.tolist(), pairs.second.tolist(), pairs.scores.tolist(), strict=True)
    assert {(min(a, b), max(a, b), round(score, 5)) for a, b, score in found} == real


@pytest.mark.parametrize(("num", "most"), [(40, 200), (41, 100), (40, 780), (7, 3), (500, 5000)])
def test_a_bound_is_kept_and_everybody_takes_part_equally(num: int, most: int) -> None:
    vectors, people = some(2, [2] * num)
    pairs = different_pairs(vectors, people, most=most)
    assert len(pairs) <= max(most, num)
    assert pairs.weights.sum() == pytest.approx(1.0)
    keys = {(min(a, b), max(a, b)) for a, b in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)}
    assert len(keys) == pairs.draws
    part = np.unique(np.concatenate([pairs.first, pairs.second]), return_counts=True)[1]
    assert len(part) == num and len(set(part.tolist())) == 1


def test_one_with_many_photos_counts_as_anyone_else() -> None:
    vectors, people = some(3, [400, 2, 2, 2])
    same, different = same_pairs(vectors, people, per_person=64), different_pairs(vectors, people, most=100)
    often = np.bincount(people).argmax()
    assert same.weights[same.first == often].sum() == pytest.approx(0.25)
    assert (same.first == often).sum() == 64
    assert different.weights[(different.first == often) | (different.second == often)].sum() == pytest.approx(0.5)


def test_drawn_pairs_of_one_person_are_different_pairs_of_different_photos() -> None:
    vectors, people = some(4, [30], dim=16)
    pairs = same_pairs(vectors, people, per_person=200)
    assert len(pairs) == 200 == len(set(pairs.scores.tolist()))
    assert pairs.scores.max() < 0.999


def test_the_same_seed_draws_the_same_and_another_another() -> None:
    vectors, people = some(5, [3] * 60)
    one, again, other = (different_pairs(vectors, people, most=300, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.scores, again.scores) and not np.array_equal(one.scores, other.scores)


def test_among_some_people_weights_are_those_of_a_draw_among_them() -> None:
    vectors, people = some(6, [2, 3, 1, 4, 2])
    chosen = np.zeros(people.max() + 1, dtype=bool)
    chosen[[1, 4, 10]] = True
    inside = chosen[people]
    for draw in (same_pairs, different_pairs):
        part, alone = draw(vectors, people).among(chosen), draw(vectors[inside], people[inside])
        assert (len(part), part.people, part.draws) == (len(alone), alone.people, alone.draws)
        assert np.allclose(part.scores, alone.scores) and np.allclose(np.sort(part.weights), np.sort(alone.weights))


@pytest.mark.parametrize("sizes", [[], [3], [1, 1]])
def test_too_few_for_any_pair_give_none(sizes: list[int]) -> None:
    vectors, people = some(7, sizes)
    assert len(same_pairs(vectors, people)) == (3 if sizes == [3] else 0)
    assert len(different_pairs(vectors, people)) == (1 if sizes == [1, 1] else 0)
