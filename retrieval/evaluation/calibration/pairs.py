"""Pairs of photos drawn by people, so that a person with many photos counts as much as one with few.

Of the same: draw a person, then two photos of that person. Of different ones: draw two people, then a photo of each.
Every pair carries the probability that such a draw gives it, and no more than a stated number is looked at: memory
grows with that number, not with photos x photos.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_AT_ONCE = 1 << 24
"""Numbers of embeddings that are multiplied in one go: 64 MB a side."""

_MOST_OF_TWO = 16
"""Pairs of photos looked at, of two people, at most: more say little that is new."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """P pairs of photos, highest score first.

    scores: (P,) float32. first, second: (P,) int32, who they show. draw: (P,) int32, from which person, or pair of two
    people, each comes. weights: (P,) float64, the probability of each, sum 1. people, draws: how many there are.
    """

    scores: np.ndarray
    first: np.ndarray
    second: np.ndarray
    draw: np.ndarray
    weights: np.ndarray
    people: int
    draws: int

    def __len__(self) -> int:
        return len(self.scores)

    def among(self, chosen: np.ndarray) -> Pairs:
        """The pairs of people of whom both are `chosen`, (people,) bool, weighted as if there were no others."""
        inside = chosen[self.first] & chosen[self.second]
        kept = {name: getattr(self, name)[inside] for name in ("scores", "first", "second", "draw", "weights")}
        kept["weights"] /= max(kept["weights"].sum(), 1e-300)
        there = np.bincount(kept["first"], minlength=len(chosen)) + np.bincount(kept["second"], minlength=len(chosen))
        draws = int(np.count_nonzero(np.bincount(kept["draw"])))
        return Pairs(**kept, people=int(np.count_nonzero(there)), draws=draws)


def same_pairs(embeddings: np.ndarray, people: np.ndarray, per_person: int = 64, seed: int = 0) -> Pairs:
    """Pairs of photos of one person: all of them, or so many drawn where a person has more.

    Args: embeddings: (N, D) float32. people: (N,) int, 0 or more.
    """
    random = np.random.default_rng(seed)
    order = np.argsort(people, kind="stable")
    starts, counts = _runs(people[order])
    left, right, whose, weights = [], [], [], []
    for start, count in zip(starts[counts > 1], counts[counts > 1], strict=True):
        one, other = (
            np.triu_indices(count, 1) if count * (count - 1) // 2 <= per_person else _two(random, count, per_person)
        )
        left.append(order[start + one])
        right.append(order[start + other])
        whose.append(np.full(len(one), people[order[start]], dtype=np.int32))
        weights.append(np.full(len(one), 1 / len(one)))
    num = len(left)
    i, j, who = (np.concatenate(part) if num else np.zeros(0, dtype=np.int64) for part in (left, right, whose))
    share = np.concatenate(weights) / num if num else np.zeros(0)
    return _sorted(_scores(embeddings, i, j), who, who, who, share, people=num, draws=num)


def different_pairs(embeddings: np.ndarray, people: np.ndarray, most: int = 4_000_000, seed: int = 0) -> Pairs:
    """Pairs of photos of two people: of all pairs of people where `most` allows, else of as many, each person in
    equally many; of two people as many pairs of photos as there is room for, at most 16.

    Args: as `same_pairs`.
    """
    random = np.random.default_rng(seed)
    order = np.argsort(people, kind="stable")
    starts, counts = _runs(people[order])
    num = len(counts)
    if num < 2:
        none = np.zeros(0, dtype=np.int32)
        return _sorted(np.zeros(0, dtype=np.float32), none, none, none, np.zeros(0), people=num, draws=0)
    names = people[order[starts]].astype(np.int32)
    draws = min(num * (num - 1) // 2, max(most // num, 1) * num)
    room = int(min(max(most // draws, 1), _MOST_OF_TWO))
    found: list[tuple[np.ndarray, ...]] = []
    number = 0
    for one, other in _two_people(random, num, draws):
        ways = (counts[one] * counts[other])[:, None]
        slots = np.arange(room)[None, :]
        which = np.where(ways <= room, slots, random.integers(0, ways, size=(len(one), room)))
        taken = slots < ways
        i = order[(starts[one][:, None] + which // counts[other][:, None])[taken]]
        j = order[(starts[other][:, None] + which % counts[other][:, None])[taken]]
        each = np.minimum(ways[:, 0], room)
        draw = np.arange(number, number + len(one), dtype=np.int32)
        of_draws = (names[one], names[other], draw, 1 / (each * draws))
        found.append((_scores(embeddings, i, j), *(np.repeat(part, each) for part in of_draws)))
        number += len(one)
    return _sorted(*(np.concatenate(part) for part in zip(*found, strict=True)), people=num, draws=draws)


def _two_people(random: np.random.Generator, num: int, draws: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`draws` pairs of `num` people, in blocks, none twice: all, or those at some distances round a random circle."""
    circle = random.permutation(num)
    distances = np.arange(1, (num - 1) // 2 + 1)
    if draws < num * (num - 1) // 2:
        distances = np.sort(random.permutation(distances)[: draws // num])
    for distance in distances:
        yield circle, np.roll(circle, -int(distance))
    if num % 2 == 0 and draws == num * (num - 1) // 2:
        yield circle[: num // 2], circle[num // 2 :]


def _two(random: np.random.Generator, count: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """`wanted` different pairs of `count` photos."""
    drawn = random.choice(count * (count - 1) // 2, wanted, replace=False)
    # The pairs (i, j), j < i, in a row: i(i - 1)/2 + j.
    i = np.floor((1 + np.sqrt(1 + 8 * drawn)) / 2).astype(np.int64)
    return drawn - i * (i - 1) // 2, i


def _runs(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and length of each run of equal values."""
    _, starts, counts = np.unique(ordered, return_index=True, return_counts=True)
    return starts, counts


def _scores(embeddings: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    out = np.empty(len(i), dtype=np.float32)
    step = max(1, _AT_ONCE // max(1, embeddings.shape[1]))
    for start in range(0, len(i), step):
        block = slice(start, start + step)
        out[block] = np.einsum("nd,nd->n", embeddings[i[block]], embeddings[j[block]])
    return out


def _sorted(
    scores: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    draw: np.ndarray,
    weights: np.ndarray,
    *,
    people: int,
    draws: int,
) -> Pairs:
    order = np.argsort(-scores)
    return Pairs(
        scores=scores[order],
        first=first[order],
        second=second[order],
        draw=draw[order],
        weights=weights[order],
        people=people,
        draws=draws,
    )
