"""Small networks, noise to put through them, and the plain road to an embedding."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
import torchvision.models as tv
from torch import Tensor, nn

from retrieval.images.pixels import decode_stored
from retrieval.models import bundle
from retrieval.models.backbones import build_trunk
from retrieval.models.network import EmbeddingNet
from retrieval.models.pooling import l2n
from retrieval.models.settings import ModelConfig

M = TypeVar("M", bound=nn.Module)

SMALL = ModelConfig(backbone="resnet18", cut="layer2", image_size=64, embedding_dim=16)
GEM = dataclasses.replace(SMALL, pooling="gem", head="none", keep_aspect=True, scales=(1.0, 0.7071, 0.5))


def photos(num: int = 2) -> Tensor:
    return torch.randn(num, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def embed(net: EmbeddingNet) -> Tensor:
    return net(photos(3))


def on_meta(name: str) -> nn.Sequential:
    """The network's shape without its numbers: the large ones cost nothing."""
    with torch.device("meta"):
        return build_trunk(name)


def drawn_vgg(name: str) -> nn.Sequential:
    """Without the classifier, whose hundred million numbers would be drawn first and thrown away."""
    torch.manual_seed(0)
    trunk = on_meta(name).to_empty(device="cpu")
    for parameter in trunk.parameters():
        nn.init.normal_(parameter, std=0.05 if parameter.ndim == 1 else (2 / parameter[0].numel()) ** 0.5)
    return trunk


def small_transformer(image_size: int = 64) -> tv.VisionTransformer:
    """Two layers of 32 numbers, patches of 16 pixels; no weight is zero."""
    torch.manual_seed(4)
    net = tv.VisionTransformer(
        image_size=image_size, patch_size=16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64
    )
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net.eval()


def with_statistics(net: M, seed: int = 3) -> M:
    """Running statistics away from 0 and 1, so that BatchNorm does something that may not be lost."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = 0.1 * torch.randn(module.num_features, generator=generator)
            module.running_var = 0.5 + torch.rand(module.num_features, generator=generator)
    return net


def network(backbone: str = "resnet18", **settings: object) -> EmbeddingNet:
    """Random weights, head and statistics."""
    usual: dict[str, object] = {"image_size": 64, "embedding_dim": 16}
    return with_statistics(bundle.build(ModelConfig(backbone=backbone, **(usual | settings)), seed=2))  # type: ignore[arg-type]


def whitening(dim: int, length: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    drawn = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((dim, length), (length,))]
    return drawn[0], drawn[1] / length


@torch.no_grad()
def plainly(net: EmbeddingNet, jpegs: Sequence[bytes]) -> np.ndarray:
    """One image after another: decode, normalise by the formula, forward."""
    out = []
    for jpeg in jpegs:
        pixels = torch.from_numpy(decode_stored(jpeg, 64)).double() / 255
        x = ((pixels - torch.tensor(net.spec.mean)) / torch.tensor(net.spec.std)).permute(2, 0, 1)[None].float()
        out.append((l2n(net(x) + net(x.flip(3))) if net.spec.config.flip else net(x))[0].numpy())
    return np.stack(out)
