"""What passes between a replica and the parts of an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True, slots=True)
class IndexName:
    """Which index is asked. It comes with every question, so that no answer is of two.

    uri: its folder, as it was published. fingerprint: of what is in it.
    """

    uri: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """How a part stands with an index.

    state: refused, where the files are not those that were sealed; failed, where another try may be better.
    num, dim, keeps_vectors: of its shards, where it holds them.
    """

    state: Literal["held", "loading", "failed", "refused"]
    why: str = ""
    num: int = 0
    dim: int = 0
    keeps_vectors: bool = False


@dataclass(frozen=True, slots=True)
class Vectors:
    """mine: (n,) bool, which of the rows asked for the part has. vectors: (m, D) float32, of those."""

    mine: np.ndarray
    vectors: np.ndarray


class PartLost(ConnectionError):
    """A part does not answer, or does not hold what it is asked for. Another moment may be better: it is no fault of
    the question, and no answer is made of what the other parts found."""

    def __init__(self, number: int, parts: int, why: str) -> None:
        """Args: number: of the part, from 0."""
        super().__init__(f"Part {number + 1} of {parts} of the index is away: {why}. Without it nothing is answered.")
        self.number = number
