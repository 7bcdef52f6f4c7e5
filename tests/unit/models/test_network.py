"""The network is trunk, pooling, head and whitening, each by its formula, at one scale or several."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from retrieval.models import bundle, network, pooling
from tests.support.networks import GEM, SMALL, embed, photos, whitening


@pytest.mark.parametrize("pool", ["avg", "gem", "grid"])
@pytest.mark.parametrize("head", ["mlp", "none"])
def test_forward_is_trunk_pool_l2_head_l2(pool: str, head: str) -> None:
    config = dataclasses.replace(SMALL, pooling=pool, head=head, grid=2)  # type: ignore[arg-type]
    net = bundle.build(config)
    with torch.no_grad():
        maps = net.trunk(photos(3))
        pooled = {
            "avg": maps.mean(dim=(2, 3)),
            "gem": pooling.gem(maps, 3.0),
            "grid": nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1),
        }[pool]
        x = pooling.l2n(pooled)
        if head == "mlp":
            first, second = net.get_submodule("head.0"), net.get_submodule("head.2")
            assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
            x = (x @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias
        expected = pooling.l2n(x)
    got = embed(net)
    assert torch.allclose(got, expected, atol=1e-6)
    assert got.shape == (3, net.dim) and net.num_features == pooled.shape[1]
    assert torch.allclose(got.norm(dim=1), torch.ones(3), atol=1e-4)


def test_normalise_is_imagenet_s() -> None:
    pixels = torch.randint(0, 256, (2, 5, 5, 3), dtype=torch.uint8)
    got = bundle.build(SMALL).normalise(pixels)
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        assert torch.allclose(got[:, channel], (pixels[..., channel] / 255 - mean) / std, atol=1e-6)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_whitening_is_applied_last_and_comes_back_with_the_bundle(tmp_path: Path) -> None:
    net = bundle.build(GEM)
    projection, mean = whitening(24, 128)
    white = network.with_whitening(net, projection, mean, "learned")
    assert (net.dim, white.dim, white.base_dim) == (128, 24, 128)
    assert (white.spec.whitening, white.spec.whitening_dim) == ("learned", 24)
    plain = embed(net).double()
    for row, got in zip(plain, embed(white), strict=True):
        y = projection @ (row - mean)
        assert torch.allclose(got.double(), y / y.norm(), atol=1e-5)
    bundle.save_bundle(white, tmp_path)
    other = bundle.load_bundle(tmp_path)
    assert other.spec == white.spec and other.spec.config.scales == (1.0, 0.7071, 0.5)
    assert torch.equal(embed(other), embed(white)) and other.dim == 24
    with pytest.raises(ValueError, match="learned at its own scales"):
        network.with_scales(white, [1.0])
    assert bundle.build(white.spec.config).dim == 128  # whitening is learned, and not built
    with pytest.raises(ValueError, match=r"\(24, 64\) and \(64,\) does not fit embeddings of length 128"):
        network.with_whitening(net, *whitening(24, 64), "pca")


@pytest.mark.parametrize(
    ("settings", "power"),
    [
        ({}, 2.5),
        ({"head": "linear", "embedding_dim": 8}, 1.0),
        ({"gem_per_channel": True}, 1.0),
        ({"pooling": "mac"}, 1.0),
        ({"head": "mlp"}, 1.0),
    ],
)
def test_scales_are_averaged_with_gem_s_power_where_the_embedding_is_gem_s_own(
    settings: dict[str, object], power: float
) -> None:
    net = bundle.build(dataclasses.replace(GEM, **settings))  # type: ignore[arg-type]
    if net.spec.config.pooling == "gem":
        with torch.no_grad():
            net.pool.p.fill_(2.5)  # type: ignore[operator, union-attr]
    assert net.power == power
    if power != 1:  # whitening comes after the mean, and does not change it
        assert network.with_whitening(net, *whitening(4, 128), "pca").power == power


@pytest.mark.parametrize(("pool", "power"), [("gem", 2.5), ("avg", 1.0)])
@torch.no_grad()
def test_several_scales_are_described_one_by_one_and_averaged(pool: str, power: float) -> None:
    """Of 64 pixels a half is the least that is looked at; 0.4 is left out."""
    config = dataclasses.replace(GEM, pooling=pool, scales=(1.0, 0.75, 0.5, 0.4))  # type: ignore[arg-type]
    net, x = bundle.build(config), photos(3)
    if pool == "gem":
        net.pool.p.fill_(2.5)  # type: ignore[operator, union-attr]
    total = torch.zeros(3, 128)
    for size in (64, 48, 32):
        small = nn.functional.interpolate(x, size=(size, size), mode="bilinear") if size != 64 else x
        total += pooling.l2n(net.pool(net.trunk(small))).pow(power)
    expected = nn.functional.normalize((total / 3).pow(1 / power))
    assert torch.allclose(net(x), expected, atol=1e-5)
    single = network.with_scales(net, [1.0])
    assert torch.allclose(single(x), pooling.l2n(net.pool(net.trunk(x))), atol=1e-6)


def test_a_copy_with_scales_or_whitening_leaves_the_network_as_it_is() -> None:
    net = bundle.build(GEM)
    net.fingerprint = "sealed"
    spec, before = net.spec, embed(net)
    scaled, white = network.with_scales(net, [0.5]), network.with_whitening(net, *whitening(24, 128), "pca")
    assert (scaled.spec.config.scales, scaled.fingerprint, white.fingerprint) == ((0.5,), "", "")
    for other in (scaled, white):
        with torch.no_grad():
            for value in other.state_dict().values():
                value.zero_()
    assert net.spec is spec and net.fingerprint == "sealed"
    assert torch.equal(embed(net), before)


def test_a_new_network_looks_at_its_trunk_without_training_it() -> None:
    trunk = bundle.build(SMALL).trunk.train()
    net = network.EmbeddingNet(
        network.ModelSpec(config=dataclasses.replace(SMALL, cut="", gem_per_channel=True)), trunk
    )
    assert not any(module.training for module in net.modules())
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all(int(norm.num_batches_tracked) == 0 for norm in norms)  # type: ignore[arg-type]
    assert not any(parameter.grad_fn for parameter in net.parameters())


def test_pooling_and_head_are_in_float32_whatever_the_trunk_is_in() -> None:
    net = bundle.build(dataclasses.replace(SMALL, pooling="gem"))
    with torch.no_grad():
        maps = net.trunk(photos(3))
        expected = net.from_maps(maps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = net.from_maps(maps)
    assert got.dtype == torch.float32 and torch.equal(got, expected)
    with torch.no_grad():
        assert net.from_maps(maps.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "features", "dim"),
    [
        ({"pooling": "grid", "grid": 3, "head": "none"}, 9 * 128, 9 * 128),
        ({"pooling": "rmac", "head": "linear", "embedding_dim": 5}, 128, 5),
        ({"pooling": "mac", "embedding_dim": 7}, 128, 7),
    ],
)
def test_lengths_are_those_of_the_pooling_and_of_the_head(settings: dict[str, object], features: int, dim: int) -> None:
    net = bundle.build(dataclasses.replace(SMALL, **settings))  # type: ignore[arg-type]
    assert (net.num_features, net.dim, net.base_dim) == (features, dim, dim)
    assert embed(net).shape == (3, dim)


def test_a_spec_s_own_normalisation_is_used() -> None:
    spec = network.ModelSpec(config=SMALL, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 2.0))
    net = network.EmbeddingNet(spec, bundle.build(dataclasses.replace(SMALL, cut="")).trunk)
    got = net.normalise(torch.full((1, 2, 2, 3), 255, dtype=torch.uint8))
    assert got.shape == (1, 3, 2, 2) and got.dtype == torch.float32
    assert got[0, :, 0, 0].tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"whitening": "learned"},
            "whitening is 'learned' with 0 dimensions.*learned from a trained model's embeddings",
        ),
        ({"whitening_dim": 8}, "whitening is 'none' with 8 dimensions"),
        ({"whitening": "zca", "whitening_dim": 8}, "whitening is 'zca'"),
    ],
)
def test_whitening_without_dimensions_or_of_no_known_kind_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        network.ModelSpec(config=SMALL, **settings)  # type: ignore[arg-type]
