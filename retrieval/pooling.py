"""Pooling a feature map to one vector: (B, C, h, w) -> (B, C)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

GEM_EPS = 1e-6
L2_EPS = 1e-6


def gem(x: Tensor, p: Tensor | float, eps: float = GEM_EPS) -> Tensor:
    """Generalised-mean pooling: y_c = (mean_hw max(x_chw, eps)^p)^(1/p)   (Radenovic et al., arXiv:1711.02512).

    Args:
        x: (B, C, h, w) float, any range, clamped below at eps.
        p: > 0, scalar or (C, 1, 1); 1 is the mean (SPoC), infinity the maximum (MAC).
        eps: > 0.

    Returns: (B, C), dtype of x, not L2-normalised.

    Example:
        >>> gem(torch.ones(2, 8, 4, 4), p=3.0).shape
        torch.Size([2, 8])
    """
    power = torch.as_tensor(p, dtype=x.dtype, device=x.device)
    mean = x.clamp(min=eps).pow(power).mean(dim=(-2, -1), keepdim=True)
    return mean.pow(1.0 / power).flatten(1)


def l2n(x: Tensor, eps: float = L2_EPS) -> Tensor:
    """L2 normalisation along the last axis: x / (||x||_2 + eps), eps outside the root.

    Args:
        x: (..., D) float.

    Returns: (..., D), dtype of x, norm <= 1; a zero vector stays zero.

    Example:
        >>> l2n(torch.tensor([3.0, 4.0, 0.0]))
        tensor([0.6000, 0.8000, 0.0000])
    """
    return x / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + eps)


class AveragePool(nn.Module):
    """Mean over space (SPoC; adaptive average pooling to 1x1)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float().mean(dim=(-2, -1))


class GeMPool(nn.Module):
    """`gem` with one shared trainable p, 3 at the start."""

    def __init__(self, p: float = 3.0) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p))

    def forward(self, x: Tensor) -> Tensor:
        # Powers of small numbers lose too much in bfloat16.
        return gem(x.float(), self.p)


class GridPool(nn.Module):
    """Means over a g x g grid of cells, laid end to end: (B, C, h, w) -> (B, C*g*g).

    Keeps where on an aligned object (a cropped face) a feature was seen, which one mean over the whole map forgets.
    """

    def __init__(self, grid: int = 3) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x.float(), self.grid).flatten(1)


POOLINGS: dict[str, type[nn.Module]] = {"avg": AveragePool, "gem": GeMPool, "grid": GridPool}
