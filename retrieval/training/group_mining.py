"""Which images meet in a training batch, and which of them form triplets.

Every epoch each identity calls in the identities it is now most confused with (exact search over the centres of a few
embeddings of each), and a few images of each: a group. Batches are made of groups; triplets are all positive pairs of a
batch, each with a negative chosen among its images.

Every draw depends on the seed, the epoch and the embeddings alone, not on the number of workers nor on earlier draws,
so an interrupted run draws what an uninterrupted one would.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from retrieval.models.pooling import l2n
from retrieval.training.settings import STRATEGIES, Strategy

SPREAD_FLOOR = 0.2
"""Embeddings whose `spread` is below this have collapsed, or are about to."""

_BLOCK = 2048  # identities searched at once


def label_numbers(labels: np.ndarray) -> np.ndarray:
    """Names (N,) -> numbers (N,) int64, 0 .. I-1 in sorted order of the names."""
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def pool_of(rows: np.ndarray, labels: np.ndarray, *, size: int = 0, seed: int) -> np.ndarray:
    """Rows mined from: all, or whole identities drawn up to `size` images (0: all). Identities adjoin.

    Args: rows: (N,) int. labels: (N,), their names.

    Raises: ValueError if there are fewer than two identities.
    """
    numbers = label_numbers(labels)
    if not len(rows) or numbers.max() < 1:
        raise ValueError("Training needs at least two identities with two images each in the train split. Add photos.")
    order = np.random.default_rng(seed).permutation(numbers.max() + 1)
    ranked = np.argsort(np.argsort(order)[numbers], kind="stable")  # whole identities, in drawn order
    rows = rows[ranked]
    if size and size < len(rows):
        names = numbers[ranked]
        whole = np.flatnonzero(names[:size] != names[size])
        rows = rows[: whole[-1] + 1] if len(whole) else rows[:0]
        if len(np.unique(names[: len(rows)])) < 2:
            raise ValueError(f"pool_size {size} holds fewer than two whole identities. Raise it, or 0 for all.")
    return rows


def class_centres(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Mean direction of each identity: (N, D), (N,) int64 in 0 .. I-1 -> (I, D), unit norm."""
    sums = torch.zeros(int(labels.max()) + 1, embeddings.shape[1], device=embeddings.device)
    return l2n(sums.index_add_(0, labels, embeddings))


def mine_groups(
    centres: Tensor, strategy: Strategy, *, companions: int = 3, candidates: int = 12, seed: int, epoch: int
) -> np.ndarray:
    """Each identity with `companions` others: random ones, or drawn from the `candidates` whose centres are nearest.

    Drawing from a few nearest, rather than taking the nearest, keeps one mislabelled pair from coming back every time.

    Args: centres: (I, D) float32, unit norm.

    Returns: (I, 1 + c) int64, the identity itself first; c = min(companions, I - 1). The order of rows is a seeded
        permutation.

    Raises: ValueError if there are fewer than two identities: no negative exists.
    """
    num = len(centres)
    if num < 2:
        raise ValueError(f"The mining pool has {num} identities, so no negative exists. Add photos of other people.")
    _check(strategy)
    companions, candidates = min(companions, num - 1), min(max(candidates, companions), num - 1)
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(num)
    picks = np.argsort(rng.random((num, candidates)), axis=1)[:, :companions]
    if strategy == "random":
        # The r-th of the others, skipping the identity itself.
        chosen = np.stack([rng.choice(num - 1, companions, replace=False) for _ in range(num)])
        chosen += chosen >= order[:, None]
        return np.concatenate([order[:, None], chosen], axis=1)
    nearest = np.empty((num, candidates), dtype=np.int64)
    for start in range(0, num, _BLOCK):
        scores = centres[start : start + _BLOCK] @ centres.T
        scores[torch.arange(len(scores)), torch.arange(start, start + len(scores))] = -torch.inf
        nearest[start : start + len(scores)] = scores.topk(candidates, dim=1).indices.cpu().numpy()
    return np.concatenate([order[:, None], np.take_along_axis(nearest[order], picks, axis=1)], axis=1)


def draw_images(labels: np.ndarray, groups: np.ndarray, *, per_identity: int = 4, seed: int, epoch: int) -> np.ndarray:
    """Up to `per_identity` random images of each identity of each group.

    Args:
        labels: (N,) int64, 0 .. I-1. groups: (G, M) int64 identities.

    Returns: (G, M * per_identity) int64 rows into `labels`, -1 where an identity has fewer images.
    """
    rng = np.random.default_rng([seed, epoch, 1])
    shuffled = rng.permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]  # identities together, each in random order
    sizes = np.bincount(labels)
    first = np.cumsum(sizes) - sizes
    # A random place to start in each identity's list, then the images that follow, around its end.
    offset = (rng.random(groups.shape) * sizes[groups]).astype(np.int64)
    step = np.arange(per_identity)
    rows = order[first[groups][..., None] + (offset[..., None] + step) % sizes[groups][..., None]]
    rows[np.broadcast_to(step, rows.shape) >= sizes[groups][..., None]] = -1
    return rows.reshape(len(groups), -1)


def triplets_in_batch(embeddings: Tensor, labels: Tensor, strategy: Strategy, *, seed: int = 0) -> Tensor:
    """All (anchor, positive) pairs of a batch, each with one negative of the batch.

    random: any. hardest: the nearest. semi-hard: the nearest that is farther than the positive, d(a,n) > d(a,p)
    (FaceNet, arXiv:1503.03832, section 3.2), or the nearest of all where there is none.

    Args:
        embeddings: (B, D) float, unit norm; no gradient flows through the choice. labels: (B,) int64.

    Returns: (T, 3) int64 rows (anchor, positive, negative) of the batch, in order of anchor, then positive. T is 0 if
        the batch has no pair or no negative.
    """
    _check(strategy)
    same = labels[:, None] == labels[None]
    pairs = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device) & (~same).any(dim=1, keepdim=True)
    anchor, positive = pairs.nonzero(as_tuple=True)
    if strategy == "random":
        generator = torch.Generator().manual_seed(seed)
        scores = torch.rand(len(anchor), len(labels), generator=generator).to(labels.device)
    else:
        scores = (embeddings.detach() @ embeddings.detach().T)[anchor]
    to_positive = scores.gather(1, positive[:, None])
    scores = scores.masked_fill(same[anchor], -torch.inf)
    if not len(anchor):
        return torch.empty(0, 3, dtype=torch.int64, device=labels.device)
    negative = scores.argmax(dim=1)
    if strategy == "semi-hard":
        best = scores.masked_fill(scores >= to_positive, -torch.inf).max(dim=1)
        negative = torch.where(best.values > -torch.inf, best.indices, negative)
    return torch.stack([anchor, positive, negative], dim=1)


def choose_strategy(wanted: Strategy, *, epoch: int, warmup_epochs: int, spread_now: float) -> Strategy:
    """The strategy for this epoch (1, 2, ...): never one that is known to collapse from here.

    Hardest negatives wait for `warmup_epochs` of semi-hard ones, and give way to them again in any epoch whose
    embeddings spread less than twice SPREAD_FLOOR. It is a function of the epoch and its embeddings only, so a resumed
    run decides alike. (Embeddings that collapse all the same: see `LabelRecipe.mine`.)
    """
    if wanted == "hardest" and (epoch <= warmup_epochs or spread_now < 2 * SPREAD_FLOOR):
        return "semi-hard"
    return wanted


def _check(strategy: str) -> None:
    if strategy not in STRATEGIES:
        raise ValueError(f"Unknown negatives '{strategy}'. Choose one of: {', '.join(STRATEGIES)}.")
