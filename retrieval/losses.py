"""Losses on embeddings. Distance, loss and reduction are apart, so that each can be replaced alone."""

from __future__ import annotations

from torch import Tensor


def squared_l2(x: Tensor, y: Tensor) -> Tensor:
    """||x - y||_2^2 along the last axis: (..., D), (..., D) -> (...)."""
    return (x - y).square().sum(dim=-1)


def triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 0.2) -> Tensor:
    """Triplet loss: L = max(||a - p||^2 - ||a - n||^2 + margin, 0)   (FaceNet, arXiv:1503.03832, eq. 1-3).

    Squared distances with margin 0.2, FaceNet's convention; others use plain distances with 0.05.

    Args:
        anchor, positive, negative: (B, D) float, unit norm.
        margin: alpha > 0.

    Returns: (B,) float, each >= 0, not reduced.

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
