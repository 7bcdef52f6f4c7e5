"""Losses on embeddings. Distance, loss and reduction are apart, so that each can be replaced alone.

A loss of tuples is a function of (query, positive, negatives, margin) and a line in `LOSSES`: by that name it is a
setting. PyTorch is imported where it is used only, so that settings can name the losses without loading it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def squared_l2(x: Tensor, y: Tensor) -> Tensor:
    """||x - y||_2^2 along the last axis: (..., D), (..., D) -> (...)."""
    return (x - y).square().sum(dim=-1)


def triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 0.2) -> Tensor:
    """Triplet loss: L = max(||a - p||^2 - ||a - n||^2 + margin, 0)   (FaceNet, arXiv:1503.03832, eq. 1-3).

    Squared distances with margin 0.2, FaceNet's convention; others use plain distances with 0.05.

    Args:
        anchor, positive, negative: (..., D) float, unit norm.
        margin: alpha > 0.

    Returns: (...) float, each >= 0, not reduced.

    Example:
        >>> import torch
        >>> a, p, n = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]]), torch.tensor([[0.0, 1.0]])
        >>> triplet(a, p, n)  # 0.8 - 2.0 + 0.2 < 0
        tensor([0.])
    """
    return (squared_l2(anchor, positive) - squared_l2(anchor, negative) + margin).clamp(min=0)


def mean_of_active(loss: Tensor) -> Tensor:
    """Mean over the terms above zero: satisfied triplets give no gradient and must not dilute the others.

    Args:    loss: (B,) float >= 0.
    Returns: scalar; 0 if no term is active.
    """
    return loss.sum() / (loss > 0).sum().clamp(min=1)


def triplets_of_tuple(query: Tensor, positive: Tensor, negatives: Tensor, margin: float = 0.2) -> Tensor:
    """The triplets of a tuple, its positive with each of its negatives, summed.

    Args:
        query, positive: (B, D) float, unit norm. negatives: (B, K, D) float, unit norm.
        margin: as in `triplet`.

    Returns: (B,) float, each >= 0, not reduced: gradients of tuples are meant to add up.

    Example:
        >>> import torch
        >>> q, n = torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.8, 0.6], [0.0, 1.0]]])
        >>> triplets_of_tuple(q, torch.tensor([[0.6, 0.8]]), n)  # (0.8 - 0.4 + 0.2) + 0
        tensor([0.6000])
    """
    return triplet(query[:, None], positive[:, None], negatives, margin).sum(dim=1)


def contrastive(query: Tensor, positive: Tensor, negatives: Tensor, margin: float = 0.7) -> Tensor:
    """Contrastive loss of a tuple, summed over its pairs   (Radenovic et al., arXiv:1711.02512, eq. 4).

    0.5 D^2 for the matching pair, 0.5 max(0, margin - D)^2 for another, D = ||q - x + 1e-6||_2 (1e-6 on each
    coordinate, which keeps the root's gradient finite at D = 0).

    Args:
        query, positive: (B, D) float, unit norm. negatives: (B, K, D) float, unit norm.
        margin: distance from which a negative is far enough.

    Returns: (B,) float, each >= 0, not reduced: gradients of tuples are meant to add up.

    Example:
        >>> import torch
        >>> q, p, n = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]]), torch.tensor([[[0.8, 0.6]]])
        >>> contrastive(q, p, n)  # 0.5 * 0.8 + 0.5 * (0.7 - 0.6325)^2
        tensor([0.4023])
    """
    import torch

    others = torch.cat([positive[:, None], negatives], dim=1)
    matching = torch.arange(others.shape[1], device=others.device) == 0
    distance = (query[:, None] - others + 1e-6).square().sum(dim=-1).sqrt()
    apart = (margin - distance).clamp(min=0).square()
    return 0.5 * distance.square().where(matching, apart).sum(dim=-1)


LOSSES: dict[str, Loss] = {"contrastive": contrastive, "triplet": triplets_of_tuple}
"""Losses of tuples by name: (query (B, D), positive (B, D), negatives (B, K, D), margin) -> (B,), not reduced."""
