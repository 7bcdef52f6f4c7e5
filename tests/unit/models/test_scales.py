"""Scales against loops over pixels and embeddings."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from retrieval.models.pooling import at_scale, mean_over_scales, usable_scales


def bilinear(x: Tensor, height: int, width: int) -> Tensor:
    """One (C, H, W) image: each output pixel's centre, between its four neighbours, edges repeated."""
    out = torch.empty(len(x), height, width)
    for i in range(height):
        for j in range(width):
            y = max(0.0, (i + 0.5) * x.shape[1] / height - 0.5)
            z = max(0.0, (j + 0.5) * x.shape[2] / width - 0.5)
            top, left = int(y), int(z)
            below, right = min(top + 1, x.shape[1] - 1), min(left + 1, x.shape[2] - 1)
            a, b = y - top, z - left
            out[:, i, j] = (1 - a) * ((1 - b) * x[:, top, left] + b * x[:, top, right]) + a * (
                (1 - b) * x[:, below, left] + b * x[:, below, right]
            )
    return out


@pytest.mark.parametrize(("scale", "size"), [(0.7071, (35, 45)), (2**0.5, (70, 91)), (0.75, (37, 48))])
def test_a_scale_is_bilinear_between_pixel_centres(scale: float, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 50, 65, generator=torch.Generator().manual_seed(0))
    got = at_scale(x, scale)
    assert tuple(got.shape[2:]) == size
    for image, small in zip(x, got, strict=True):
        assert torch.allclose(small, bilinear(image, *size), atol=1e-4)
    assert at_scale(x, 1.0) is x
    assert at_scale(x.bfloat16(), scale).dtype == torch.bfloat16


def test_too_short_sides_are_continued() -> None:
    x = torch.arange(20 * 40, dtype=torch.float32).reshape(1, 1, 20, 40)
    got = at_scale(x, 1.0)
    assert got.shape == (1, 1, 32, 40)
    assert torch.equal(got[:, :, :20], x) and all(torch.equal(got[0, 0, i], x[0, 0, 19]) for i in range(20, 32))
    assert at_scale(torch.ones(2, 3, 1, 3), 0.5).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("side", "used"), [(100, [1.0, 0.7, 0.4]), (79, [1.0, 0.7]), (40, [1.0]), (3, [1.0]), (80, [1.0, 0.7, 0.4])]
)
def test_scales_that_leave_nothing_to_see_are_left_out(side: int, used: list[float]) -> None:
    assert usable_scales(side, 500, (1.0, 0.7, 0.4)) == usable_scales(500, side, (1.0, 0.7, 0.4)) == used


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_mean_over_scales_is_the_formula(power: float) -> None:
    found = torch.nn.functional.normalize(torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0)), dim=2)
    got = mean_over_scales(list(found), power)
    for i in range(4):
        v = [sum(float(found[s, i, d]) ** power for s in range(3)) / 3 for d in range(6)]
        v = [value ** (1 / power) for value in v]
        norm = sum(value**2 for value in v) ** 0.5
        assert got[i].tolist() == pytest.approx([value / norm for value in v], abs=1e-5)
    assert mean_over_scales([found[0]], power) is not None and torch.equal(
        mean_over_scales([found[0]], power), found[0]
    )
    signed = [torch.tensor([[-1.0, 0.0]]), torch.tensor([[0.0, 1.0]])]
    assert torch.allclose(mean_over_scales(signed, 1.0), torch.tensor([[-0.7071, 0.7071]]), atol=1e-4)
