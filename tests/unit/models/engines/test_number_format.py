"""bfloat16 is taken where the hardware has it and embeddings stay as they are, block by block."""

from __future__ import annotations

import platform

import pytest
import torch

from retrieval.images.pixels import encode_jpeg
from retrieval.models.embedder import Embedder
from retrieval.models.engines import number_format
from retrieval.models.engines.number_format import pick_dtype
from retrieval.models.network import EmbeddingNet
from retrieval.models.settings import Precision
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
    # What was decided for several machines holds on this one too, which emulates it.
    assert Embedder(first, device="cpu", assume_bfloat16=True).format == formats[1]
    assert Embedder(first, device="cpu", precision="fp32", assume_bfloat16=True).format == "float32"


def test_bfloat16_is_for_hardware_that_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A capability that is not told is none; one of another name counts for nothing."""
    net = network()
    for told, native in (({"avx512_bf16": True}, True), ({"avx512_bf16": False}, False), ({"bf16": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda told=told: told)
        assert number_format._is_native(net) == native
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert not number_format._is_native(net)


@torch.no_grad()
@pytest.mark.parametrize(("cosine", "dtype"), [(0.9991, torch.bfloat16), (0.9989, torch.float32)])
def test_directions_must_stay_to_a_cosine_of_999_in_a_thousand(
    monkeypatch: pytest.MonkeyPatch, cosine: float, dtype: torch.dtype
) -> None:
    """One image of four that turns is enough."""
    net = network(cut="layer1")
    turned = torch.eye(2)[[0, 0, 0, 0]].clone()
    turned[2] = torch.tensor([cosine, (1 - cosine**2) ** 0.5])
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(
        net, "forward", lambda _: turned if torch.is_autocast_enabled("cpu") else torch.eye(2)[[0, 0, 0, 0]]
    )
    assert pick_dtype(net) == dtype
    assert number_format._least_cosine(torch.eye(2)[[0, 0, 0, 0]], turned) == pytest.approx(cosine)


@torch.no_grad()
@pytest.mark.parametrize(
    ("precision", "out", "words"), [("fp32", torch.float32, "float32"), ("bf16", torch.bfloat16, "bfloat16")]
)
def test_a_trunk_for_inference_is_a_copy_in_the_format_asked_for(
    precision: Precision, out: torch.dtype, words: str
) -> None:
    net, x = network(), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = {name: (value.clone(), value.stride()) for name, value in net.state_dict().items()}
    trunk, told = number_format.inference_trunk(net, precision)
    maps = trunk(x)
    assert (maps.dtype, told) == (out, words)
    assert torch.allclose(maps.float(), net.trunk(x), atol=1e-4 if precision == "fp32" else 0.3)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in trunk.modules())
    weights = [layer.weight for layer in trunk.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    for parameter in trunk.parameters():
        parameter.zero_()
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name][0]) and value.stride() == before[name][1], name


def test_drawn_images_are_smooth_the_same_each_time_and_no_larger_than_the_network_s() -> None:
    drawn = number_format._drawn_images(network(cut="layer1", image_size=96))
    assert drawn.shape == (4, 96, 96, 3) and drawn.dtype == torch.uint8
    assert torch.equal(drawn, number_format._drawn_images(network(cut="layer1", image_size=96)))
    assert number_format._drawn_images(network(cut="layer1", image_size=500)).shape == (4, 224, 224, 3)
    for image in drawn:
        assert (int(image.min()), int(image.max())) == (0, 255)
    steps = drawn.double().diff(dim=1).abs().mean()
    assert 2 < float(steps) < 0.4 * float(drawn.double().std())
    assert len({image.numpy().tobytes() for image in drawn}) == 4


def test_pytorch_still_says_what_the_hardware_multiplies() -> None:
    """Under another name the answer would be no, silently, and all would run in float32 at half the speed.

    It is an instruction of x86: PyTorch names it there, and nowhere else.
    """
    capabilities = torch.cpu.get_capabilities()
    assert ("avx512_bf16" in capabilities) == (platform.machine() in ("x86_64", "AMD64"))
    assert capabilities.get("avx512_bf16", False) in (True, False)
