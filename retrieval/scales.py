"""One image at several sizes, and the mean of its embeddings over them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from retrieval.pooling import l2n

LEAST_SIDE = 32
"""Pixels; the trunks halve a side five times."""


def usable_scales(height: int, width: int, scales: Sequence[float]) -> list[float]:
    """The scales that leave each side at least 32 pixels, or the largest if none does.

    Smaller images say nothing that the others do not, and make empty maps.
    """
    return [scale for scale in scales if min(height, width) * scale >= LEAST_SIDE] or [max(scales)]


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
