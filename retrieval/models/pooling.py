"""Pooling a feature map to one vector: (B, C, h, w) -> (B, C)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from retrieval.models.settings import LEAST_SIDE

GEM_EPS = 1e-6

L2_EPS = 1e-6

RMAC_LEVELS = 3

RMAC_OVERLAP = 0.4

RMAC_STEPS = range(2, 8)


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


def mac(x: Tensor) -> Tensor:
    """Maximum activations of convolutions, gem's limit for p = infinity: y_c = max_hw x_chw.

    Args:    x: (B, C, h, w) float.
    Returns: (B, C), dtype of x, not L2-normalised.
    """
    return x.amax(dim=(-2, -1))


def rmac_regions(height: int, width: int, levels: int = RMAC_LEVELS) -> list[tuple[int, int, int]]:
    """The square regions of R-MAC, as (top, left, side)   (Tolias et al., arXiv:1511.05879, sec. 3.2).

    At level l squares of side floor(2 * short / (l + 1)) are spread evenly, l along the short side. Along the long side
    there are m - 1 more: m, of 2 to 7, is the number of squares of the short side's length that overlap by nearest to
    40 %. A square map has as many along both.
    """
    short, long = min(height, width), max(height, width)
    overlap = {m: (short - (long - short) / (m - 1)) / short for m in RMAC_STEPS}
    extra = 0 if height == width else min(RMAC_STEPS, key=lambda m: abs(overlap[m] - RMAC_OVERLAP)) - 1
    regions = []
    for level in range(1, levels + 1):
        side = 2 * short // (level + 1)
        if side:
            tops = _spread(height - side, level + (extra if height > width else 0))
            lefts = _spread(width - side, level + (extra if width > height else 0))
            regions += [(top, left, side) for top in tops for left in lefts]
    return regions


def _spread(room: int, num: int) -> list[int]:
    """`num` whole positions from 0 to `room`, as even as rounding down leaves them."""
    return [0] if num == 1 else [k * room // (num - 1) for k in range(num)]


def rmac(x: Tensor, levels: int = RMAC_LEVELS) -> Tensor:
    """Regional maxima: y = l2n(mac(x)) + sum_R l2n(mac(x_R)) over `rmac_regions`   (Tolias et al., arXiv:1511.05879).

    Args:    x: (B, C, h, w) float.
    Returns: (B, C), dtype of x, not L2-normalised.
    """
    total = l2n(mac(x))
    for top, left, side in rmac_regions(x.shape[-2], x.shape[-1], levels):
        total = total + l2n(mac(x[..., top : top + side, left : left + side]))
    return total


class MACPool(nn.Module):
    """`mac`."""

    def forward(self, x: Tensor) -> Tensor:
        return mac(x.float())


class RMACPool(nn.Module):
    """`rmac` on three levels."""

    def forward(self, x: Tensor) -> Tensor:
        return rmac(x.float())


class AveragePool(nn.Module):
    """Mean over space (SPoC; adaptive average pooling to 1x1)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float().mean(dim=(-2, -1))


class GeMPool(nn.Module):
    """`gem` with a trainable p, 3 at the start: one shared by all channels, or one for each of `num_channels`."""

    def __init__(self, p: float = 3.0, num_channels: int | None = None) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p) if num_channels is None else torch.full((num_channels,), p))

    def forward(self, x: Tensor) -> Tensor:
        # Powers of small numbers lose too much in bfloat16.
        return gem(x.float(), self.p if self.p.ndim == 0 else self.p[:, None, None])


class GridPool(nn.Module):
    """Means over a g x g grid of cells, laid end to end: (B, C, h, w) -> (B, C*g*g).

    Keeps where on an aligned object (a cropped face) a feature was seen, which one mean over the whole map forgets.
    """

    def __init__(self, grid: int = 3) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x.float(), self.grid).flatten(1)


POOLINGS: dict[str, type[nn.Module]] = {
    "avg": AveragePool,
    "gem": GeMPool,
    "mac": MACPool,
    "rmac": RMACPool,
    "grid": GridPool,
}


def at_scale(x: Tensor, scale: float) -> Tensor:
    """An image resized: bilinear, align_corners=False, sides rounded down.

    A side that is then shorter than 32 pixels is continued to 32 by its last row or column.

    Args:    x: (B, C, H, W) float, normalised.
    Returns: (B, C, h, w), dtype of x, channels_last in memory where it was changed.
    """
    if scale != 1:
        size = [max(1, math.floor(side * scale)) for side in x.shape[2:]]
        resized = nn.functional.interpolate(x.float(), size=size, mode="bilinear", align_corners=False)
        x = resized.to(x.dtype, memory_format=torch.channels_last)
    height, width = x.shape[2:]
    if min(height, width) >= LEAST_SIDE:
        return x
    room = (0, max(0, LEAST_SIDE - width), 0, max(0, LEAST_SIDE - height))
    return nn.functional.pad(x, room, mode="replicate").contiguous(memory_format=torch.channels_last)


def mean_over_scales(embeddings: Sequence[Tensor], power: float) -> Tensor:
    """v = ((1/S) sum_s v_s^m)^(1/m), then L2; one embedding is returned as it is   (arXiv:1711.02512, sec. 5.1).

    Args:    embeddings: S of (B, D) float32, unit norm; not negative unless power is 1.   power: m > 0.
    Returns: (B, D) float32, unit norm.
    """
    if len(embeddings) == 1:
        return embeddings[0]
    return l2n(torch.stack(list(embeddings)).pow(power).mean(dim=0).pow(1.0 / power))
