"""Pooling, L2 normalisation and scales equal the published numbers and slow loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from retrieval.models.pooling import (
    POOLINGS,
    AveragePool,
    GeMPool,
    GridPool,
    at_scale,
    gem,
    l2n,
    mac,
    mean_over_scales,
    rmac,
    rmac_regions,
)


def maps(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def slow_gem(x: Tensor, p: float) -> list[list[float]]:
    return [
        [(sum(max(float(v), 1e-6) ** p for v in channel.flatten()) / channel.numel()) ** (1 / p) for channel in image]
        for image in x
    ]


@pytest.mark.parametrize("p", [0.5, 1.0, 3.0, 6.7])
def test_gem_is_the_formula(p: float) -> None:
    x = maps(2, 3, 4, 5)
    assert torch.allclose(gem(x, p), torch.tensor(slow_gem(x, p), dtype=x.dtype), rtol=1e-10)


def test_gem_runs_from_mean_to_maximum() -> None:
    x = maps(2, 5, 3, 3).abs() + 0.01
    assert torch.allclose(gem(x, 1.0), x.mean(dim=(-2, -1)), rtol=1e-12)
    assert torch.allclose(gem(x, 300.0), x.amax(dim=(-2, -1)), rtol=0.01)
    steps = torch.stack([gem(x, p) for p in (1.0, 2.0, 3.0, 10.0)])
    assert (steps.diff(dim=0) > 0).all()  # a power mean grows with its power


def test_gem_takes_a_power_for_each_channel() -> None:
    x = maps(1, 2, 3, 3).abs()
    both = gem(x, torch.tensor([1.0, 4.0], dtype=x.dtype).view(2, 1, 1))
    assert torch.allclose(both, torch.cat([gem(x, 1.0)[:, :1], gem(x, 4.0)[:, 1:]], dim=1))


def test_gem_has_the_right_gradients_for_maps_and_power() -> None:
    x = (maps(1, 2, 2, 3).abs() + 0.1).requires_grad_()
    p = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gem, (x, p))


def test_l2n_adds_its_epsilon_outside_the_root() -> None:
    got = l2n(torch.tensor([3.0, 4.0, 0.0], dtype=torch.float64))
    # Published: [0.59999990, 0.79999983, 0] in single precision; 3 / (5 + 1e-6) = 0.59999988.
    assert torch.allclose(got, torch.tensor([0.59999990, 0.79999983, 0.0], dtype=torch.float64), rtol=0, atol=3e-8)
    assert got[0].item() == 3 / (5 + 1e-6)
    assert l2n(torch.zeros(2, 4)).abs().sum() == 0


def test_l2n_is_a_loop_and_differentiable() -> None:
    x = maps(4, 7)
    for row, got in zip(x.tolist(), l2n(x).tolist(), strict=True):
        norm = math.sqrt(sum(v * v for v in row)) + 1e-6
        assert got == pytest.approx([v / norm for v in row], rel=1e-12)
    assert torch.autograd.gradcheck(l2n, (x.requires_grad_(),))


def test_average_pool_is_the_mean_and_gem_pool_starts_at_three() -> None:
    x = maps(2, 3, 4, 5).abs().float()
    assert torch.allclose(AveragePool()(x), x.mean(dim=(-2, -1)))
    pool = GeMPool()
    assert [name for name, _ in pool.named_parameters()] == ["p"]
    assert torch.allclose(pool(x), gem(x, 3.0))


def test_grid_pool_is_the_mean_of_each_cell() -> None:
    x = maps(2, 3, 6, 6).float()
    cells = [
        x[:, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean(dim=(-2, -1))
        for c in range(3)
        for i in range(3)
        for j in range(3)
    ]
    assert torch.allclose(GridPool(3)(x), torch.stack(cells, dim=1), atol=1e-6)
    assert torch.allclose(GridPool(1)(x), AveragePool()(x), atol=1e-6)


def test_gem_pool_learns_a_power_for_each_channel() -> None:
    x, pool = maps(2, 3, 4, 5).abs().float(), GeMPool(num_channels=3)
    assert torch.allclose(pool(x), gem(x, 3.0))
    pool(x).sum().backward()
    assert pool.p.grad is not None and pool.p.grad.shape == (3,) and (pool.p.grad != 0).all()
    with torch.no_grad():
        pool.p.copy_(torch.tensor([1.0, 2.0, 5.0]))
    for channel, p in enumerate((1.0, 2.0, 5.0)):
        assert torch.allclose(pool(x)[:, channel], gem(x, p)[:, channel])


def slow_regions(height: int, width: int) -> list[tuple[int, int, int]]:
    """The published steps one by one, in floats, with the region's centre as it is written there."""
    short = min(height, width)
    gaps = [(max(height, width) - short) / (steps - 1) for steps in (2, 3, 4, 5, 6, 7)]
    off = [abs((short**2 - short * gap) / short**2 - 0.4) for gap in gaps]
    best = off.index(min(off))
    more_down, more_across = (best + 1) * (height > width), (best + 1) * (width > height)
    found = []
    for level in (1, 2, 3):
        side = math.floor(2 * short / (level + 1))
        half = math.floor(side / 2 - 1)
        down = (height - side) / (level + more_down - 1) if level + more_down > 1 else 0.0
        across = (width - side) / (level + more_across - 1) if level + more_across > 1 else 0.0
        for i in range(level + more_down):
            for j in range(level + more_across):
                # 1e-9: a whole number that a float falls just short of is that number
                top, left = math.floor(half + i * down + 1e-9) - half, math.floor(half + j * across + 1e-9) - half
                if side:
                    found.append((top, left, side))
    return found


@pytest.mark.parametrize("height", [1, 2, 3, 7, 12, 24, 32])
@pytest.mark.parametrize("width", [1, 2, 5, 12, 23, 32])
def test_rmac_regions_are_the_published_grid_and_stay_inside(height: int, width: int) -> None:
    got = rmac_regions(height, width)
    assert got == slow_regions(height, width)
    assert all(0 <= top <= height - side and 0 <= left <= width - side for top, left, side in got)


def test_rmac_regions_by_hand() -> None:
    """A square has 1 + 4 + 9. Of 24 x 32 two whole squares overlap by 2/3, nearest to 0.4: 1x2 + 2x3 + 3x4."""
    assert rmac_regions(6, 6)[:5] == [(0, 0, 6), (0, 0, 4), (0, 2, 4), (2, 0, 4), (2, 2, 4)]
    assert [side for _, _, side in rmac_regions(6, 6)] == [6] + [4] * 4 + [3] * 9
    assert [side for _, _, side in rmac_regions(24, 32)] == [24] * 2 + [16] * 6 + [12] * 12
    assert rmac_regions(24, 32)[:2] == [(0, 0, 24), (0, 8, 24)]
    assert rmac_regions(1, 1) == [(0, 0, 1)]  # deeper squares would have no pixel


@pytest.mark.parametrize("shape", [(2, 5, 6, 9), (1, 3, 8, 8), (1, 4, 2, 1)])
def test_mac_and_rmac_are_loops(shape: tuple[int, int, int, int]) -> None:
    x = maps(*shape)
    for image, largest, regional in zip(x, mac(x), rmac(x), strict=True):
        assert largest.tolist() == [max(channel.flatten().tolist()) for channel in image]
        total = [0.0] * shape[1]
        for top, left, side in [(0, 0, 0), *slow_regions(*shape[2:])]:
            part = image[:, top : top + side, left : left + side] if side else image
            found = [max(channel.flatten().tolist()) for channel in part]
            norm = math.sqrt(sum(v * v for v in found)) + 1e-6
            total = [old + v / norm for old, v in zip(total, found, strict=True)]
        assert regional.tolist() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("name", sorted(POOLINGS))
def test_poolings_give_float32_for_bfloat16_maps(name: str) -> None:
    x = maps(2, 4, 6, 6).abs().to(torch.bfloat16)
    got = POOLINGS[name]()(x)
    assert got.dtype == torch.float32
    assert torch.allclose(got, POOLINGS[name]()(x.float()))


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
