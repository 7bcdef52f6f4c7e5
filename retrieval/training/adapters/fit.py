"""Candidates for an adapter, each trained on embeddings alone, with the losses and miners of the other recipes.

linear and residual begin as the identity, and weight decay draws them back to it. An epoch maps the training photos'
embeddings, mines, and takes steps; there is no choice among epochs, so that validation chooses among candidates and
nothing else. Every draw depends on the seed and the epoch alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retrieval.artifacts.progress import Progress, silent
from retrieval.models import whitening
from retrieval.models.adapters.adapter import Adapter
from retrieval.models.pooling import l2n
from retrieval.training import group_mining, tuple_mining
from retrieval.training.adapters.settings import AdaptConfig, Candidate
from retrieval.training.adapters.vectors import Known
from retrieval.training.losses import LOSSES, mean_of_active
from retrieval.training.recipe import one_cycle

_GROUPS_PER_STEP, _TUPLES_PER_STEP = 8, 64
_NEGATIVES, _QUERIES, _POOL = 5, 2000, 20_000  # of tuples: a query's, an epoch's, and where they are looked for
_FIT_ROWS = 8192  # embeddings added to whitening's sums at once

Rows = tuple[Tensor, Tensor, Tensor]
"""(T,) queries, (T,) positives, (T, K) negatives: rows of the training photos."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """A candidate. history: a row an epoch: epoch, loss, tuples; and seconds."""

    adapter: Adapter
    history: list[dict[str, Any]]


def fit(candidate: Candidate, known: Known, config: AdaptConfig, progress: Progress = silent) -> Fitted:
    """Make one candidate."""
    if candidate == "whitening":
        return Fitted(adapter=_whitening(known, config), history=[])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        dim = known.train.vectors.shape[1]
        trained = _Linear(dim) if candidate == "linear" else _Residual(dim, config.hidden)
    return Fitted(history=_train(trained, known, config, progress), adapter=trained.adapter())


def _whitening(known: Known, config: AdaptConfig) -> Adapter:
    """Lw of the pairs, y = P (x - m), as a matrix and a bias."""
    x = torch.from_numpy(known.train.vectors)
    moments = whitening.Moments(x.shape[1])
    for at in range(0, len(x), _FIT_ROWS):
        moments.add(x[at : at + _FIT_ROWS])
    pairs = torch.from_numpy(known.pairs)
    for at in range(0, len(pairs), _FIT_ROWS):
        moments.add_pairs(x[pairs[at : at + _FIT_ROWS, 0]], x[pairs[at : at + _FIT_ROWS, 1]])
    projection, mean = whitening.learned(moments, shrinkage=config.shrinkage)
    return _adapter("whitening", weight=projection, bias=-(projection @ mean))


class _Linear(nn.Module):
    """x + M x + b, then L2; M and b begin as zero."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.change, self.bias = nn.Parameter(torch.zeros(dim, dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return l2n(x + x @ self.change.T + self.bias)

    def adapter(self) -> Adapter:
        return _adapter("linear", weight=self.change + torch.eye(len(self.bias)), bias=self.bias)


class _Residual(nn.Module):
    """x + V max(U x + u, 0) + v, then L2; V and v begin as zero."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        return l2n(x + self.down(self.up(x).relu()))

    def adapter(self) -> Adapter:
        up, down = self.up, self.down
        return _adapter("residual", up=up.weight, up_bias=up.bias, down=down.weight, down_bias=down.bias)


def _adapter(kind: Candidate, **tensors: Tensor) -> Adapter:
    return Adapter(kind, {name: value.detach().float().numpy().copy() for name, value in tensors.items()})


def _train(trained: _Linear | _Residual, known: Known, config: AdaptConfig, progress: Progress) -> list[dict[str, Any]]:
    x = torch.from_numpy(known.train.vectors)
    optimiser = torch.optim.AdamW(trained.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    history = []
    for epoch in range(1, config.epochs + 1):
        begun, losses = time.monotonic(), []
        with torch.no_grad():
            embeddings = trained(x)
        steps = list(_mined(embeddings, known, config, epoch))
        for step, mined in enumerate(steps):
            done = (epoch - 1 + (step + 1) / len(steps)) / config.epochs
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * one_cycle(done)
            query, positive, negatives = _tuples(trained, x, known, mined)
            if not len(query):
                continue
            loss = LOSSES[config.loss](query, positive, negatives, config.margin)
            optimiser.zero_grad(set_to_none=True)
            mean_of_active(loss).backward()
            optimiser.step()
            losses.append(loss.detach())
        found = torch.cat(losses) if losses else torch.zeros(1)
        row = {"epoch": epoch, "loss": float(found.mean()), "tuples": sum(map(len, losses))}
        history.append(row | {"seconds": time.monotonic() - begun})
        progress("epochs", epoch, config.epochs)
    return history


def _mined(embeddings: Tensor, known: Known, config: AdaptConfig, epoch: int) -> Iterator[np.ndarray | Rows]:
    """The steps of an epoch: rows that meet in a batch, or tuples."""
    if known.queries is not None and known.positives is not None:
        yield from _mined_tuples(embeddings, known, known.queries, known.positives, config.seed, epoch)
        return
    labels, draw = known.train.labels, {"seed": config.seed, "epoch": epoch}
    centres = group_mining.class_centres(embeddings, torch.from_numpy(labels))
    groups = group_mining.mine_groups(centres, "semi-hard", **draw)
    rows = group_mining.draw_images(labels, groups, **draw)
    for some in np.array_split(rows, math.ceil(len(rows) / _GROUPS_PER_STEP)):
        yield np.unique(some[some >= 0])


def _mined_tuples(
    embeddings: Tensor, known: Known, queries: np.ndarray, positives: np.ndarray, seed: int, epoch: int
) -> Iterator[Rows]:
    labels = known.train.labels
    draw = tuple_mining.draw_epoch(
        np.arange(len(queries)),
        np.arange(len(labels)),
        num_queries=_QUERIES,
        pool_size=_POOL,
        seed=seed,
        epoch=epoch,
    )
    asking = queries[draw.queries]
    num = min(_NEGATIVES, len(np.unique(labels[draw.pool])) - 1)
    found = tuple_mining.mine_negatives(
        embeddings[asking], labels[asking], embeddings[draw.pool], labels[draw.pool], num=num, strategy="N2"
    )
    given = (asking, positives[draw.queries], draw.pool[found])
    for at in range(0, len(asking), _TUPLES_PER_STEP):
        query, positive, negatives = (torch.from_numpy(rows[at : at + _TUPLES_PER_STEP]) for rows in given)
        yield query, positive, negatives


def _tuples(trained: nn.Module, x: Tensor, known: Known, mined: np.ndarray | Rows) -> Rows:
    """Embeddings, with their gradient, of a step's queries (T, D), positives (T, D) and negatives (T, K, D)."""
    if isinstance(mined, np.ndarray):
        found = trained(x[torch.from_numpy(mined)])
        labels = torch.from_numpy(known.train.labels[mined])
        query, positive, negative = group_mining.triplets_in_batch(found, labels, "semi-hard").T
        return found[query], found[positive], found[negative][:, None]
    query, positive, negatives = mined
    return trained(x[query]), trained(x[positive]), trained(x[negatives])
