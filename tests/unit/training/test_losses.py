"""The losses equal their formulas, term by term."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from retrieval.models.pooling import l2n
from retrieval.training import group_mining, losses
from retrieval.training.losses import mean_of_active, squared_l2, triplet


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


def test_contrastive_by_hand() -> None:
    query = torch.tensor([[1.0, 0.0]])
    positive, negatives = torch.tensor([[0.6, 0.8]]), torch.tensor([[[0.8, 0.6], [-1.0, 0.0]]])
    # 0.5 * 0.8 + 0.5 * (0.7 - sqrt(0.4))^2 + 0, the last being farther than the margin
    want = 0.4 + 0.5 * (0.7 - 0.4**0.5) ** 2
    got = losses.contrastive(query, positive, negatives, margin=0.7)
    assert got.item() == pytest.approx(want, abs=1e-5)


def test_contrastive_equals_the_loop_over_pairs_and_its_gradient_is_finite_at_zero() -> None:
    torch.manual_seed(0)
    query = torch.nn.functional.normalize(torch.randn(4, 8, dtype=torch.float64), dim=1).requires_grad_()
    others = torch.nn.functional.normalize(torch.randn(4, 6, 8, dtype=torch.float64), dim=2)
    others[0, 0] = query[0].detach()
    total = []
    for q, row in zip(query, others, strict=True):
        one = torch.zeros((), dtype=torch.float64)
        for at, x in enumerate(row):
            distance = ((q - x + 1e-6) ** 2).sum().sqrt()
            one = one + (0.5 * distance**2 if at == 0 else 0.5 * torch.clamp(0.85 - distance, min=0) ** 2)
        total.append(one)
    got = losses.contrastive(query, others[:, 0], others[:, 1:], margin=0.85)
    assert torch.allclose(got, torch.stack(total))
    got.sum().backward()
    assert query.grad is not None
    assert torch.isfinite(query.grad).all()


def test_contrastive_has_the_right_gradient_beyond_and_within_the_margin() -> None:
    query, positive, negatives = unit(0, 3), unit(1, 3), unit(2, 12).view(3, 4, 5)
    far = losses.contrastive(query, positive, negatives, 0.01)
    assert torch.allclose(far, 0.5 * (query - positive + 1e-6).square().sum(dim=1))  # negatives cost nothing
    tensors = tuple(each.clone().requires_grad_() for each in (query, positive, negatives))
    assert torch.autograd.gradcheck(lambda q, p, n: losses.contrastive(q, p, n, 1.5), tensors)


def test_margins_are_the_published_ones_unless_given() -> None:
    query, positive, negatives = unit(0, 3), unit(1, 3), unit(2, 12).view(3, 4, 5)
    for loss, margin in ((losses.contrastive, 0.7), (losses.triplets_of_tuple, 0.2)):
        assert torch.equal(loss(query, positive, negatives), loss(query, positive, negatives, margin))
        assert not torch.equal(loss(query, positive, negatives), loss(query, positive, negatives, margin + 0.5))


def test_triplets_of_a_tuple_are_summed_one_a_negative() -> None:
    query, positive, negatives = unit(0, 4), unit(1, 4), unit(2, 12).view(4, 3, 5)
    got = losses.triplets_of_tuple(query, positive, negatives, 1.0)
    expected = [
        sum(slow_triplet(query[i : i + 1], positive[i : i + 1], negatives[i, k : k + 1], 1.0)[0] for k in range(3))
        for i in range(4)
    ]
    assert got.tolist() == pytest.approx(expected)
    assert min(expected) > 0


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_loss_of_the_table_is_one_of_tuples(name: str) -> None:
    """Not reduced, never below zero, no tuple in another's way; nearer positives and farther negatives cost less."""
    loss = losses.LOSSES[name]
    query, positive, negatives = unit(0, 4), unit(1, 4), unit(2, 12).view(4, 3, 5)
    whole = loss(query, positive, negatives, 0.9)
    assert whole.shape == (4,) and (whole >= 0).all()
    alone = [loss(query[i : i + 1], positive[i : i + 1], negatives[i : i + 1], 0.9) for i in range(4)]
    assert torch.allclose(torch.cat(alone), whole)
    assert torch.allclose(loss(query, positive, negatives.flip(1), 0.9), whole)
    assert (loss(query, query, negatives, 0.9) <= whole).all()
    assert (loss(query, positive, -query[:, None].expand(-1, 3, -1), 0.9) <= whole).all()
    assert (loss(query, positive, query[:, None].expand(-1, 3, -1), 0.9) > whole).all()


LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 2, 3])  # the last is alone under its label


def average_precisions(x: Tensor, labels: Tensor) -> list[float]:
    found = []
    for query in range(len(x)):
        order = [int(row) for row in (x @ x[query]).argsort(descending=True) if row != query]
        ranks = [rank for rank, row in enumerate(order, start=1) if labels[row] == labels[query]]
        if ranks:
            found.append(float(np.mean([at / rank for at, rank in enumerate(ranks, start=1)])))
    return found


def test_smooth_ap_is_the_average_precision_where_the_sigmoid_is_a_step() -> None:
    x = unit(3, len(LABELS))
    expected = average_precisions(x, LABELS)
    assert len(expected) == 7 and 0.2 < np.mean(expected) < 0.9
    assert losses.smooth_ap(x, LABELS, 1e-6).item() == pytest.approx(1 - np.mean(expected), abs=1e-9)
    assert losses.smooth_ap(x, LABELS).item() == losses.smooth_ap(x, LABELS, 0.01).item()
    assert abs(losses.smooth_ap(x, LABELS, 0.5).item() - losses.smooth_ap(x, LABELS).item()) > 0.02


def test_smooth_ap_has_the_right_gradient_and_none_without_a_pair() -> None:
    x = unit(3, len(LABELS)).requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: losses.smooth_ap(rows, LABELS, 0.3), (x,))
    alone = losses.smooth_ap(x, torch.arange(len(x)))
    alone.backward()
    assert alone.item() == 0 and x.grad is not None and not x.grad.any()


@pytest.mark.parametrize("name", losses.LABEL_LOSSES)
def test_every_loss_of_a_batch_draws_photos_of_one_label_together(name: str) -> None:
    """A scalar, whatever the order of the photos; a step down its gradient brings those of one label nearer to each
    other than to the rest."""
    start = unit(5, len(LABELS), 16).float()
    centres = group_mining.class_centres(start, LABELS)
    loss = losses.LABEL_LOSSES[name](centres)
    x = start.clone().requires_grad_()
    value = loss(x, LABELS)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    assert value.ndim == 0 and value.item() > 0
    assert losses.LABEL_LOSSES[name](centres)(start[order], LABELS[order]).item() == pytest.approx(
        value.item(), rel=1e-4
    )
    value.backward()
    assert x.grad is not None and x.grad.any()
    moved = l2n(start - 0.05 * x.grad / x.grad.norm())
    assert apart(moved) > apart(start)
    assert losses.LABEL_LOSSES[name](centres)(moved, LABELS).item() < value.item()


def apart(x: Tensor) -> float:
    """How much more alike two photos of one label are than two others."""
    same = (LABELS[:, None] == LABELS) & ~torch.eye(len(LABELS), dtype=torch.bool)
    similar = x @ x.T
    return float(similar[same].mean() - similar[LABELS[:, None] != LABELS].mean())


@pytest.mark.parametrize(("name", "each"), [("arcface", 1), ("subcentre-arcface", 2)])
def test_proxies_begin_at_the_centres_of_their_labels_and_are_trained(name: str, each: int) -> None:
    centres = unit(6, 4, 16).float()
    loss = losses.LABEL_LOSSES[name](centres)
    assert isinstance(loss, torch.nn.Module)
    (proxies,) = loss.parameters()
    assert proxies.shape == (16, 4 * each) and proxies.requires_grad
    near = proxies.T.detach().view(4, each, 16)
    assert ((near * centres[:, None]).sum(dim=2) > 0.99).all()
    assert torch.unique(near.flatten(0, 1), dim=0).shape == (4 * each, 16)


def test_a_memory_that_goes_on_knows_what_it_was_told_and_where_it_was() -> None:
    centres, told, asked = unit(6, 4, 16).float(), unit(7, 8, 16).float(), unit(8, 8, 16).float()
    first, second, fresh = (losses.LABEL_LOSSES["memory"](centres) for _ in range(3))
    assert isinstance(first, torch.nn.Module) and isinstance(second, torch.nn.Module)
    first(told, LABELS)
    second.load_state_dict(first.state_dict())
    expected = first(asked, LABELS).item()
    assert second(asked, LABELS).item() == expected != fresh(asked, LABELS).item()
    assert first.state_dict()["_extra_state"].tolist() == [16, 0]
    for _ in range(126):
        first(told, LABELS)
    assert first.state_dict()["_extra_state"].tolist() == [0, 1]
