"""bfloat16 is taken where the hardware has it and embeddings stay as they are, block by block."""

from __future__ import annotations

import platform

import pytest
import torch

from retrieval.images.pixels import encode_jpeg
from retrieval.models.embedder import Embedder
from retrieval.models.network import EmbeddingNet
from retrieval.models.number_format import pick_dtype
from tests.support.networks import network, plainly
from tests.support.patterns import pattern


@pytest.fixture(scope="module")
def jpegs() -> list[bytes]:
    return [encode_jpeg(pattern(identity, shot)) for identity in range(5) for shot in range(2)]


def test_precision_can_be_chosen() -> None:
    net = network()
    assert (pick_dtype(net, "fp32"), pick_dtype(net, "bf16")) == (torch.float32, torch.bfloat16)


def with_a_fragile_pair(net: EmbeddingNet, *, last: bool) -> EmbeddingNet:
    """Two more convolutions, one 10,000 up and one down: the identity, of which 8 bits leave nothing.

    BatchNorms get their statistics from noise: with the initial ones any two images are embedded alike.
    """
    for layer in net.trunk.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        net.trunk.train()(torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    net.trunk.eval()
    channels = 512 if last else 3
    there, back = (torch.nn.Conv2d(channels, channels, 1) for _ in range(2))
    for layer, offset in ((there, 1e4), (back, -1e4)):
        layer.weight.data.copy_(torch.eye(channels)[:, :, None, None])
        layer.bias.data.fill_(offset)  # type: ignore[union-attr]
    net.trunk = torch.nn.Sequential(*((*net.trunk, there, back) if last else (there, back, *net.trunk)))
    return net


def test_only_the_blocks_that_rounding_harms_stay_in_float32(
    monkeypatch: pytest.MonkeyPatch, jpegs: list[bytes]
) -> None:
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}
    )  # so that any machine runs both ways
    robust, first, last = network(), *(with_a_fragile_pair(network(), last=last) for last in (False, True))
    assert [pick_dtype(net) for net in (robust, first, last)] == [torch.bfloat16, torch.float32, torch.float32]
    formats = []
    for net in (robust, first, last):
        embedder = Embedder(net, device="cpu")
        formats.append(embedder.format)
        assert (embedder.embed_jpegs(jpegs) * plainly(net, jpegs)).sum(axis=1).min() >= 0.998
    assert formats == ["bfloat16", "bfloat16 after 2 of 11 blocks", "float32"]
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert pick_dtype(robust) == torch.float32
    assert Embedder(robust, device="cpu").format == "float32"


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="it is a word for x86")
def test_pytorch_still_says_what_the_hardware_multiplies() -> None:
    """Under another name the answer would be no, silently, and all would run in float32 at half the speed."""
    assert torch.cpu.get_capabilities()["avx512_bf16"] in (True, False)
