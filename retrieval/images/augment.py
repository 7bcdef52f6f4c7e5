"""Training-time changes to an image. Each image draws from its own seed, so any worker makes the same view again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from retrieval.images.settings import AugmentConfig


def augment(pixels: Tensor, seeds: Sequence[Sequence[int]], config: AugmentConfig) -> Tensor:
    """One changed view of each image.

    Args:
        pixels: (B, S, S, 3) uint8 RGB.
        seeds: B entries, each a tuple of ints >= 0 that decides that image's draws.

    Returns: (B, S, S, 3) uint8, new memory.
    """
    draws = [np.random.default_rng(list(seed)) for seed in seeds]
    x = _move(pixels, draws, config)
    x = _light(x, draws, config)
    for image, rng in zip(x, draws, strict=True):
        for top, left, height, width in _holes(image.shape[0], rng, config):
            image[top : top + height, left : left + width] = _GREY
    return x


_GREY = torch.tensor([124, 116, 104], dtype=torch.uint8)  # ImageNet's mean: zero once normalised


def _move(pixels: Tensor, draws: Sequence[np.random.Generator], config: AugmentConfig) -> Tensor:
    theta = torch.zeros(len(pixels), 2, 3)
    for i, rng in enumerate(draws):
        scale = float(np.exp(rng.normal(0, 1.7 * config.shift)))
        mirror = -1.0 if rng.random() < config.flip else 1.0
        dx, dy = (float(v) for v in rng.normal(0, 2 * config.shift, size=2))  # grid_sample's side is 2 long
        theta[i] = torch.tensor([[mirror * scale, 0.0, dx], [0.0, scale, dy]])
    x = pixels.permute(0, 3, 1, 2).float()
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return moved.permute(0, 2, 3, 1)


def _light(x: Tensor, draws: Sequence[np.random.Generator], config: AugmentConfig) -> Tensor:
    gain = torch.tensor([float(np.exp(rng.normal(0, config.light))) for rng in draws]).view(-1, 1, 1, 1)
    offset = torch.tensor([float(255 * rng.normal(0, 0.4 * config.light)) for rng in draws]).view(-1, 1, 1, 1)
    return ((x - 128) * gain + 128 + offset).clamp(0, 255).round().to(torch.uint8).contiguous()


def _holes(side: int, rng: np.random.Generator, config: AugmentConfig) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) of each rectangle to blank."""
    holes = []
    if rng.random() < config.erase:
        area, ratio = rng.uniform(0.02, 0.33) * side * side, float(np.exp(rng.uniform(np.log(0.3), np.log(3.3))))
        height, width = min(side - 1, round((area * ratio) ** 0.5)), min(side - 1, round((area / ratio) ** 0.5))
        holes.append((int(rng.integers(0, side - height)), int(rng.integers(0, side - width)), height, width))
    if rng.random() < config.drop_regions:
        square = max(1, side // 10)
        corners = rng.integers(0, side - square, size=(int(rng.integers(1, 9)), 2))
        holes += [(int(top), int(left), square, square) for top, left in corners]
    return holes
