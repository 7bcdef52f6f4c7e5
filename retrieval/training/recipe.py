"""What a recipe is: how some kind of data becomes batches and a loss. The trainer does the rest, alike for each.

`label_recipe` and `tuple_recipe` are the two; a third has the methods of `Recipe` and is chosen in the job.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from retrieval.artifacts.progress import Progress
from retrieval.images.batches import Decoders
from retrieval.models.network import EmbeddingNet
from retrieval.models.settings import Precision
from retrieval.training.workers import Rank


@dataclass(frozen=True, kw_only=True, slots=True)
class Worker:
    """This process of a run, which a recipe works in.

    net: on `device`, in eval mode. dtype: what it runs in. decoders: threads beside, for what is read ahead.
    progress: told how far any long work is, often; it must be cheap.
    """

    net: EmbeddingNet
    rank: Rank
    device: torch.device
    dtype: torch.dtype
    decoders: Decoders
    progress: Progress

    def autocast(self) -> torch.autocast:
        """Products in `dtype`, where that is not float32."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)


class Past(Protocol):
    """What came before an epoch."""

    history: list[dict[str, Any]]

    def go_back(self, epoch: int) -> None:
        """Return to the best weights, at a quarter of the rate."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Mined:
    """What an epoch trains on, equal on all ranks.

    rows: (G, M) int64 in training order, -1 where a group has fewer. steps: how many the epoch takes. report: metrics.
    """

    epoch: int
    rows: np.ndarray
    steps: int
    report: dict[str, Any]

    @property
    def digest(self) -> str:
        """sha256 hex of the rows: what a resumed run must reproduce."""
        return hashlib.sha256(np.ascontiguousarray(self.rows, dtype="<i8").tobytes()).hexdigest()


class RecipeConfig(Protocol):
    """What the trainer reads of a recipe's settings."""

    @property
    def epochs(self) -> int: ...

    @property
    def precision(self) -> Precision: ...


M = TypeVar("M", bound=Mined)
B = TypeVar("B")


class Recipe(Protocol[M, B]):
    """One way to train. Every rank has its own, and all call the same methods in step.

    pool, val: rows trained on, and rows validated. unfrozen: names of the trunk's parameters that train.
    """

    pool: np.ndarray
    val: np.ndarray
    unfrozen: list[str]

    @property
    def config(self) -> RecipeConfig: ...

    def prepare(self, worker: Worker) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Once, before anything else. Returns what trains, whose state is all that changes, and its optimiser."""
        ...

    def mine(self, epoch: int, past: Past) -> M:
        """What epoch 1, 2, ... trains on: a function of the seed, the epoch and the network as it is now."""
        ...

    def batches(self, mined: M) -> Iterable[B]:
        """This rank's share of each step, in order, `mined.steps` of them."""
        ...

    def loss(self, batch: B) -> tuple[Tensor, Any]:
        """The scalar whose gradients, summed over the ranks, are the step's; and what `summary` is to know of it."""
        ...

    def summary(self, mined: M, seen: Sequence[Any]) -> dict[str, Any]:
        """Metrics of an epoch of steps, equal on all ranks."""
        ...

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """What each learning rate is multiplied by in step 0, 1, ... of epoch 1, 2, ...: so that resuming is exact."""
        ...

    def validate(self) -> dict[str, Any]:
        """Metrics of the network as it is now; `val/mAP` decides which epoch is kept."""
        ...

    def sample(self, epoch: int, num: int = 8) -> tuple[np.ndarray, np.ndarray] | None:
        """Some of what `epoch` trained on, to look at: rows and scores; None where there is nothing to show."""
        ...


def spread(embeddings: Tensor) -> float:
    """How far the embeddings keep apart: mean squared distance of two of them, 2 (1 - ||mean||^2).

    2 for directions spread evenly, 0 when all are one point: the collapse that hardest negatives can cause early
    (FaceNet, section 3.2).
    """
    return float(2 * (1 - embeddings.mean(dim=0).square().sum()))


def one_cycle(done: float) -> float:
    """Part of the peak's rate after a part of all steps: linear rise over 15 %, then a cosine to zero."""
    rise = 0.15
    return done / rise if done < rise else 0.5 * (1 + math.cos(math.pi * (done - rise) / (1 - rise)))
