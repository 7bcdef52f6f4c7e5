"""The triplet loss equals its formula, term by term."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from retrieval.losses import mean_of_active, squared_l2, triplet
from retrieval.pooling import l2n


def unit(seed: int, num: int = 6, dim: int = 5) -> Tensor:
    return l2n(torch.randn(num, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


def slow_triplet(a: Tensor, p: Tensor, n: Tensor, margin: float) -> list[float]:
    out = []
    for i in range(len(a)):
        to_positive = sum((float(x) - float(y)) ** 2 for x, y in zip(a[i], p[i], strict=True))
        to_negative = sum((float(x) - float(y)) ** 2 for x, y in zip(a[i], n[i], strict=True))
        out.append(max(to_positive - to_negative + margin, 0.0))
    return out


@pytest.mark.parametrize("margin", [0.05, 0.2, 1.0])
def test_triplet_is_the_formula(margin: float) -> None:
    a, p, n = unit(0, 40), unit(1, 40), unit(2, 40)
    got = triplet(a, p, n, margin)
    assert got.tolist() == pytest.approx(slow_triplet(a, p, n, margin), abs=1e-12)
    assert 0 < int((got > 0).sum()) < 40  # both sides of the hinge were met


def test_triplet_uses_squared_distances_and_margin_two_tenths() -> None:
    a, p, n = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[0.6, 0.8]])
    assert triplet(a, p, n).item() == pytest.approx(2.0 - 0.8 + 0.2)
    assert squared_l2(a, n).item() == pytest.approx(0.16 + 0.64)


def test_triplet_has_the_right_gradient() -> None:
    tensors = tuple(unit(seed, 3).requires_grad_() for seed in range(3))
    assert torch.autograd.gradcheck(lambda a, p, n: triplet(a, p, n, 5.0), tensors)


def test_mean_of_active_leaves_satisfied_triplets_out() -> None:
    loss = torch.tensor([0.0, 0.4, 0.0, 0.2])
    assert mean_of_active(loss).item() == pytest.approx(0.3)


@pytest.mark.parametrize("num", [0, 3])
def test_satisfied_triplets_give_zero_loss_and_zero_gradient(num: int) -> None:
    anchor = torch.tensor([[1.0, 0.0]]).repeat(num, 1).requires_grad_()
    value = mean_of_active(triplet(anchor, anchor.detach(), -anchor.detach()))
    value.backward()
    assert value.item() == 0
    assert anchor.grad is not None and not anchor.grad.any()
