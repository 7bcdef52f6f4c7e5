"""Learned whitening does what it says: within-identity scatter white, the rest sorted, noise directions turned down."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from retrieval.evaluation.metrics import leave_one_out
from retrieval.models import whitening
from retrieval.models.network import mlp_head
from retrieval.models.pooling import l2n
from retrieval.models.whitening import Moments, learn_whitening, start_head_from_whitening


def drawn(num: int = 40, each: int = 6, dim: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Identities differ in every direction; their images by strong noise in the first three."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num).repeat_interleave(each)
    noise = torch.randn(len(labels), dim, generator=generator, dtype=torch.float64) * 0.3
    noise[:, :3] *= 12
    return torch.randn(num, dim, generator=generator, dtype=torch.float64)[labels] + noise, labels


def within(y: Tensor, labels: Tensor) -> Tensor:
    """Pooled within-identity covariance, by a loop."""
    total = torch.zeros(y.shape[1], y.shape[1], dtype=y.dtype)
    for name in labels.unique():
        own = y[labels == name]
        for row in own - own.mean(dim=0):
            total += torch.outer(row, row)
    return total / (len(y) - len(labels.unique()))


def test_within_identity_covariance_becomes_the_identity() -> None:
    x, labels = drawn()
    projection, mean = learn_whitening(x, labels, 12, shrinkage=0)
    y = (x - mean) @ projection.T
    assert torch.allclose(within(y, labels), torch.eye(12, dtype=y.dtype), atol=1e-8)
    total = y.T @ y / len(y)
    assert torch.allclose(total, torch.diag(total.diagonal()), atol=1e-8)
    assert (total.diagonal().diff() <= 1e-9).all()  # the most telling direction first
    fewer, _ = learn_whitening(x, labels, 5, shrinkage=0)
    assert torch.allclose(fewer.abs(), projection[:5].abs())


def test_more_dimensions_than_images_agree_within_the_span() -> None:
    """The N x N road and the F x F road are one whitening: equal Gram matrices of the same features, padded."""
    x, labels = drawn(num=8, each=4, dim=20)
    wide = torch.cat([x, torch.zeros(len(x), 30, dtype=x.dtype)], dim=1)
    found = []
    for features in (x, wide):
        projection, mean = learn_whitening(features, labels, 10, num_components=15)
        y = (features - mean) @ projection.T
        found.append(y @ y.T)
    assert torch.allclose(found[0], found[1], rtol=1e-6, atol=1e-6)


def test_whitening_finds_people_that_plain_features_do_not() -> None:
    x, labels = drawn()
    projection, mean = learn_whitening(x, labels, 8)
    before = leave_one_out(l2n(x).float().numpy(), labels.numpy()).values["recall@1"]
    after = leave_one_out(l2n((x - mean) @ projection.T).float().numpy(), labels.numpy()).values["recall@1"]
    assert after > before + 0.2


def test_rows_beyond_the_span_are_zero() -> None:
    x, labels = drawn(num=3, each=2)
    projection, _ = learn_whitening(x, labels, 9)
    assert projection.shape == (9, 12)
    assert projection[5:].abs().max() == 0 and (projection[:5].norm(dim=1) > 0).all()


def test_photos_that_are_there_twice_span_no_more() -> None:
    """Six features, each twice, in 20 dimensions: five directions about their mean, and nothing beyond them."""
    x, labels = drawn(num=3, each=2, dim=20)
    projection, _ = learn_whitening(torch.cat([x, x]), torch.cat([labels, labels]), 9)
    assert projection[5:].abs().max() == 0 and (projection[:5].norm(dim=1) > 0).all()
    assert projection.abs().max() < 1e3


def test_no_identity_with_two_images_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one identity with two images"):
        learn_whitening(torch.randn(4, 3), torch.arange(4), 2)


def test_head_started_from_whitening_is_that_linear_map() -> None:
    x, labels = drawn(num=100)
    projection, mean = learn_whitening(x, labels, 8)
    head = mlp_head(12, 8)
    start_head_from_whitening(head, projection, mean, x)
    linear = (x - mean) @ projection.T
    with torch.no_grad():
        got = head(x.float())
    scale = got.norm() / linear.norm()  # cosines are what counts, and those the head keeps
    difference = (got - scale * linear).abs().amax(dim=1)
    assert (difference < 1e-4 * float(got.abs().max())).double().mean() > 0.99
    cosine = torch.nn.functional.cosine_similarity(got.double(), linear, dim=1)
    assert cosine.min() > 0.95 and cosine.median() > 1 - 1e-6


# -- from sums -------------------------------------------------------------------------------------------------------


def drawn_pairs(dim: int = 12, num: int = 300) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(dim, dim, dtype=torch.float64, generator=generator)
    x = torch.randn(num, dim, dtype=torch.float64, generator=generator) @ mix + 1
    noise = torch.randn(num // 2, dim, dtype=torch.float64, generator=generator) * torch.linspace(0.1, 1, dim)
    return x, x[: num // 2], x[: num // 2] + noise


def general_way(x: Tensor, query: Tensor, positive: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Lw as it is published: an inverse of the Cholesky factor and a general eigensolver."""
    mean = query.mean(dim=0).numpy()
    apart = (query - positive).numpy()
    inverse = np.linalg.inv(np.linalg.cholesky(apart.T @ apart / len(apart)))
    z = inverse @ (x.numpy() - mean).T
    values, vectors = np.linalg.eig(z @ z.T)
    return vectors[:, values.real.argsort()[::-1]].real.T @ inverse, mean


def test_learned_whitening_from_sums_is_the_published_one() -> None:
    x, query, positive = drawn_pairs()
    projection, mean = whitening.learned(Moments(12).add(x).add_pairs(query, positive))
    apart = query - positive
    within = apart.T @ apart / len(apart)
    assert torch.allclose(projection @ within @ projection.T, torch.eye(12, dtype=torch.float64), atol=1e-8)
    z = (x - mean) @ projection.T
    total = z.T @ z
    assert torch.allclose(total, torch.diag(total.diagonal()), atol=1e-6 * float(total.max()))
    assert (total.diagonal().diff() <= 1e-6).all()
    slow, slow_mean = general_way(x, query, positive)
    other = (x.numpy() - slow_mean) @ slow.T
    assert np.allclose((z @ z.T).numpy(), other @ other.T, atol=1e-7 * np.abs(other @ other.T).max())


def test_shares_add_up_to_the_whole_in_any_order() -> None:
    x, query, positive = drawn_pairs()
    whole = whitening.learned(Moments(12).add(x).add_pairs(query, positive))
    shares = [Moments(12).add(x[200:]), Moments(12).add_pairs(query[70:], positive[70:])]
    shares += [Moments(12).add(x[:200]).add_pairs(query[:70], positive[:70])]
    total = Moments(12)
    for share in shares:
        total.merge(share)
    split = whitening.learned(total)
    assert torch.allclose(split[0], whole[0], atol=1e-7)
    assert torch.allclose(split[1], whole[1])
    with pytest.raises(ValueError, match="length 12 and 5"):
        total.merge(Moments(5))


def test_pca_whitening_makes_the_covariance_white() -> None:
    x, _, _ = drawn_pairs()
    projection, mean = whitening.pca(Moments(12).add(x))
    z = (x - mean) @ projection.T
    assert torch.allclose(z.T @ z / len(z), torch.eye(12, dtype=torch.float64), atol=1e-8)
    half, _ = whitening.pca(Moments(12).add(x), power=0.5, dim=4)
    z = (x - mean) @ half.T
    covariance = (x - mean).T @ (x - mean) / len(x)
    values = torch.linalg.eigvalsh(covariance).flip(0)[:4]
    assert torch.allclose((z.square().mean(dim=0)), values.sqrt(), rtol=1e-8)


def number(x: Tensor) -> float:
    return float(x.detach())


def sums(dim: int = 12) -> tuple[Moments, Tensor, Tensor]:
    """Of all; the mean of (q - p)(q - p)^T; and the covariance about the queries' mean."""
    x, query, positive = drawn_pairs(dim)
    apart, around = query - positive, x - query.mean(dim=0)
    return Moments(dim).add(x).add_pairs(query, positive), apart.T @ apart / len(apart), around.T @ around / len(x)


def test_sums_are_those_of_a_loop() -> None:
    x, query, positive = drawn_pairs(4, 20)
    found = Moments(4).add(x[:3]).add(x[3:]).add_pairs(query, positive)
    assert (found.num, found.num_pairs) == (20, 10)
    assert torch.allclose(found.total, sum((row for row in x), torch.zeros(4, dtype=torch.float64)))
    assert torch.allclose(found.queries, query.sum(dim=0))
    outer, apart = torch.zeros(4, 4, dtype=torch.float64), torch.zeros(4, 4, dtype=torch.float64)
    for row in x:
        outer += torch.outer(row, row)
    for q, p in zip(query, positive, strict=True):
        apart += torch.outer(q - p, q - p)
    assert torch.allclose(found.outer, outer) and torch.allclose(found.differences, apart)
    centre = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    about = torch.zeros(4, 4, dtype=torch.float64)
    for row in x:
        about += torch.outer(row - centre, row - centre)
    assert torch.allclose(found.scatter(centre), about)
    assert Moments(4).add(x.float()).outer.dtype == torch.float64


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_shrinkage_draws_the_pairs_covariance_to_a_sphere_of_its_size(shrinkage: float) -> None:
    """P S P^T = I, S = (1 - shrinkage) S + shrinkage mean(diag S) I: with 1 it is PCA's directions, unscaled."""
    moments, within, total = sums()
    projection, mean = whitening.learned(moments, shrinkage=shrinkage)
    eye = torch.eye(12, dtype=torch.float64)
    shrunk = (1 - shrinkage) * within + shrinkage * within.diagonal().mean() * eye
    assert torch.allclose(projection @ shrunk @ projection.T, eye, atol=1e-8)
    assert torch.allclose(mean, drawn_pairs()[1].mean(dim=0))
    spread = projection @ total @ projection.T
    assert torch.allclose(spread, torch.diag(spread.diagonal()), atol=1e-6 * number(spread.max()))
    assert (spread.diagonal().diff() < 0).all()
    assert (projection.gather(1, projection.abs().argmax(dim=1, keepdim=True)) > 0).all()


@pytest.mark.parametrize("power", [1.0, 0.5, 0.0])
def test_power_scales_rows_by_their_variance_and_dim_cuts_them(power: float) -> None:
    """0 makes all variances alike, as PCA whitening does; 1 leaves them."""
    moments, _, total = sums()
    plain, _ = whitening.learned(moments)
    lambdas = (plain @ total @ plain.T).diagonal()
    found, _ = whitening.learned(moments, power=power)
    assert torch.allclose(found, plain * lambdas.pow((power - 1) / 2)[:, None], rtol=1e-6)
    cut, _ = whitening.learned(moments, power=power, dim=5)
    assert torch.allclose(cut, found[:5]) and cut.shape == (5, 12)


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_pca_whitening_is_sorted_cut_and_signed(power: float) -> None:
    x, _, _ = drawn_pairs()
    projection, mean = whitening.pca(Moments(12).add(x), power=power)
    assert torch.allclose(mean, x.mean(dim=0))
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    values, vectors = values.flip(0), vectors.flip(1)
    expected = (values.pow(-power / 2)[:, None] * vectors.T).abs()
    assert torch.allclose(projection.abs(), expected, rtol=1e-6, atol=1e-9)
    assert (projection.gather(1, projection.abs().argmax(dim=1, keepdim=True)) > 0).all()
    assert torch.allclose(whitening.pca(Moments(12).add(x), power=power, dim=4)[0], projection[:4])
    assert torch.allclose(whitening.pca(Moments(12).add(x))[0].abs(), (values.pow(-0.5)[:, None] * vectors.T).abs())


def test_fewer_pairs_than_dimensions_are_whitened_all_the_same_and_none_is_refused() -> None:
    """Three pairs: S has rank 3. Shrunk it has all; else it is lifted by the least that makes it positive."""
    x, query, positive = drawn_pairs()
    few = Moments(12).add(x).add_pairs(query[:3], positive[:3])
    within, eye = few.differences / 3, torch.eye(12, dtype=torch.float64)
    projection, _ = whitening.learned(few, shrinkage=0.5)
    shrunk = 0.5 * within + 0.5 * within.diagonal().mean() * eye
    assert torch.allclose(projection @ shrunk @ projection.T, eye, atol=1e-8)
    projection, _ = whitening.learned(few)
    assert torch.isfinite(projection).all()
    lifts = [10.0**power for power in range(-10, 0)]
    lift = next(lift for lift in lifts if not torch.linalg.cholesky_ex(within + lift * eye)[1])
    assert torch.allclose(projection @ (within + lift * eye) @ projection.T, eye, atol=1e-3)
    assert whitening.learned(few, dim=5)[0].shape == (5, 12)
    with pytest.raises(ValueError, match="needs matching pairs, got none"):
        whitening.learned(Moments(12).add(x))


def test_fewer_descriptors_than_dimensions_span_so_many_less_one() -> None:
    x, _, _ = drawn_pairs()
    assert whitening.pca(Moments(12).add(x[:5]))[0].shape == (4, 12)
    assert whitening.pca(Moments(12).add(x[:5]), dim=4)[0].shape == (4, 12)
    with pytest.raises(ValueError, match="span 4 dimensions, fewer than the 9"):
        whitening.pca(Moments(12).add(x[:5]), dim=9)
    with pytest.raises(ValueError, match="two descriptors or more, got 1"):
        whitening.pca(Moments(12).add(x[:1]))


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 2.0])
def test_the_faces_whitening_shrinks_the_scatter_within_identities(shrinkage: float) -> None:
    x, labels = drawn()
    projection, mean = learn_whitening(x, labels, 12, shrinkage=shrinkage)
    own, eye = within(x, labels), torch.eye(12, dtype=torch.float64)
    shrunk = own + shrinkage * own.diagonal().mean() * eye
    assert torch.allclose(projection @ shrunk @ projection.T, eye, atol=1e-8)
    assert torch.allclose(mean, x.mean(dim=0))
    if shrinkage == 0.3:
        assert torch.allclose(learn_whitening(x, labels, 12)[0], projection)


@pytest.mark.parametrize("num", [1, 4, 11])
def test_only_the_first_principal_components_are_looked_at(num: int) -> None:
    x, labels = drawn()
    projection, mean = learn_whitening(x, labels, 12, num_components=num)
    assert (projection[num:] == 0).all() and (projection[:num].norm(dim=1) > 0).all()
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean))
    left_out = vectors[:, : 12 - num]  # by rising variance
    assert (projection @ left_out).abs().max() < 1e-8 < float(values[0])


def test_an_identity_of_one_image_tells_nothing_of_the_scatter_within() -> None:
    """A lone image lies at its own centre, and takes away no degree of freedom."""
    x, labels = drawn(num=20)
    alone = x[0] + 0.1 * torch.randn(7, 12, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    every, names = torch.cat([x, alone]), torch.cat([labels, torch.arange(100, 107)])
    projection, _ = learn_whitening(every, names, 12, shrinkage=0)
    assert torch.allclose(projection @ within(x, labels) @ projection.T, torch.eye(12, dtype=x.dtype), atol=1e-8)


def test_a_head_s_activations_are_lifted_four_deviations_and_have_unit_mean_square() -> None:
    x, labels = drawn(num=100)
    projection, mean = learn_whitening(x, labels, 8)
    head = mlp_head(12, 8)
    start_head_from_whitening(head, projection, mean, x)
    with torch.no_grad():
        hidden, out = head[0](x.float()).double(), head(x.float()).double()
    linear = (x - mean) @ projection.T
    size = linear.square().sum(dim=1).mean().sqrt()
    assert torch.allclose(hidden.mean(dim=0), 4 * linear.std(dim=0) / size, rtol=1e-4)
    assert number(out.square().sum(dim=1).mean()) == pytest.approx(1, abs=0.01)
    assert torch.equal(head.get_submodule("2").get_parameter("weight"), torch.eye(8))
