"""Number formats: where a network runs in bfloat16 because the hardware has it and its embeddings stay as they are."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from retrieval.models import backbones, trunks
from retrieval.models.engines.choice import held_back
from retrieval.models.folding import fold
from retrieval.models.network import EmbeddingNet
from retrieval.models.settings import Precision

_LEAST_COSINE = 0.999  # of the embeddings in float32 and in bfloat16


def pick_dtype(net: EmbeddingNet, precision: Precision = "auto") -> torch.dtype:
    """What to train a network in. auto: bfloat16 where the hardware multiplies it natively and the network bears it.

    It bears it where the embeddings of drawn images keep their direction, cosine 0.999 at least. With ImageNet's
    weights ResNet-50 does (0.9999), MobileNet-V2 does not: 0.94 here, 0.98 on photographs, enough to turn ranks.
    """
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    return torch.bfloat16 if _is_native(net) and _bears_autocast(net) else torch.float32


def inference_trunk(
    net: EmbeddingNet, precision: Precision = "auto", *, assume_bfloat16: bool = False
) -> tuple[nn.Module, str]:
    """The trunk of a network, for inference alone: BatchNorm folded into convolutions, channels_last.

    auto: where the hardware multiplies bfloat16 natively, the trunk's first blocks are in float32, as few as leave the
    embeddings of drawn images their direction (cosine 0.999 at least), and the others in bfloat16. With ImageNet's
    weights that is all of ResNet-50 in bfloat16, and of MobileNet-V2 all but its first blocks, where rounded weights
    all but cancel.

    Args: assume_bfloat16: as of `engines.choice.open_network`.

    Returns: float32 in, maps in the last block's format out; and that in words, for manifests.
    """
    convolutional = backbones.is_convolutional(net.spec.config.backbone)
    blocks = [fold(block) if convolutional else copy.deepcopy(block) for block in trunks.blocks(net.trunk)]
    blocks = [block.to(memory_format=torch.channels_last) for block in blocks]  # type: ignore[call-overload]
    exact = 0 if precision == "bf16" else len(blocks)
    if precision == "auto" and (assume_bfloat16 or _is_native(net)):
        exact = _num_exact(net, blocks)
    if exact == len(blocks):
        return nn.Sequential(*blocks), "float32"
    words = f"bfloat16 after {exact} of {len(blocks)} blocks" if exact else "bfloat16"
    return _mixed(blocks[:exact], _rounded(blocks[exact:])), words


@torch.inference_mode()
def _num_exact(net: EmbeddingNet, blocks: Sequence[nn.Module]) -> int:
    """How many blocks have to be in float32, so that the others may be in bfloat16."""
    rounded = _rounded(blocks)
    maps = net.normalise(_drawn_images(net))
    expected = net.adapted(net.whiten(net.from_maps(nn.Sequential(*blocks)(maps))))
    for exact, block in enumerate(blocks):
        got = net.adapted(net.whiten(net.from_maps(_mixed([], rounded[exact:])(maps))))
        if _least_cosine(expected, got) >= _LEAST_COSINE:
            return exact
        maps = block(maps)
    return len(blocks)


def _rounded(blocks: Sequence[nn.Module]) -> list[nn.Module]:
    return [copy.deepcopy(block).to(dtype=torch.bfloat16) for block in blocks]


def _mixed(exact: Sequence[nn.Module], rounded: Sequence[nn.Module]) -> nn.Module:
    return nn.Sequential(*exact, _ToBfloat16(), *rounded)


class _ToBfloat16(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.bfloat16)


def _is_native(net: EmbeddingNet) -> bool:
    """Whether the hardware multiplies bfloat16 itself; emulated it is slower than float32."""
    if next(net.parameters()).device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False)) and not held_back()


@torch.no_grad()
def _bears_autocast(net: EmbeddingNet) -> bool:
    x = net.normalise(_drawn_images(net))
    exact = net(x)
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        rounded = net(x)
    return _least_cosine(exact, rounded) >= _LEAST_COSINE


def _least_cosine(a: Tensor, b: Tensor) -> float:
    return float((a.float() * b.float()).sum(dim=1).min())


def _drawn_images(net: EmbeddingNet) -> Tensor:
    """(4, S, S, 3) uint8 on the net's device, S its image size, 224 at most."""
    size = min(224, net.spec.config.image_size)
    return drawn_images(4, size, size).to(next(net.parameters()).device)


def drawn_images(num: int, height: int, width: int) -> Tensor:
    """(num, height, width, 3) uint8, always the same.

    Smooth and coarse at once, as photographs are: on plain noise rounding hardly shows.
    """
    rng = np.random.default_rng(0)
    image = torch.zeros(num, 3, height, width, dtype=torch.float64)
    for cells in (2, 4, 8, 16, 32, 64):
        grid = torch.from_numpy(rng.normal(size=(num, 3, cells, cells)))
        image += nn.functional.interpolate(grid, size=(height, width), mode="bilinear") / cells**0.5
    low, high = image.amin(dim=(1, 2, 3), keepdim=True), image.amax(dim=(1, 2, 3), keepdim=True)
    return ((image - low) / (high - low) * 255).to(torch.uint8).permute(0, 2, 3, 1)
