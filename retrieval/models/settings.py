"""Settings of the network, and the names that it knows. No heavy library is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

BACKBONES = {
    "mobilenet_v2": "features",
    "resnet18": "resnet",
    "resnet34": "resnet",
    "resnet50": "resnet",
    "resnet101": "resnet",
    "resnet152": "resnet",
    "vgg11": "vgg",
    "vgg13": "vgg",
    "vgg16": "vgg",
    "vgg19": "vgg",
    "densenet121": "densenet",
    "densenet161": "densenet",
    "densenet169": "densenet",
    "densenet201": "densenet",
    "efficientnet_b0": "features",
    "efficientnet_b1": "features",
    "efficientnet_b2": "features",
    "efficientnet_b3": "features",
    "efficientnet_v2_s": "features",
    "vit_b_16": "transformer",
    "vit_b_32": "transformer",
}
"""Networks of torchvision by its name, each with the family that says how its trunk is cut: `backbones.CUTS`."""

Precision = Literal["auto", "fp32", "bf16"]
Device = Literal["auto", "cpu", "cuda"]
Whitening = Literal["none", "learned", "pca"]
Pooling = Literal["avg", "gem", "mac", "rmac", "grid"]


def check_backbone(name: str) -> str:
    """The name itself. Raises: ValueError for an unknown one, listing the known."""
    if name not in BACKBONES:
        raise ValueError(f"Unknown backbone '{name}'. Choose one of: {', '.join(BACKBONES)}.")
    return name


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """What the network is. Enough, with its weights file, to build it again."""

    backbone: str = "mobilenet_v2"
    """Name of a torchvision network, see retrieval/models/settings.py: mobilenet_v2, resnet50, vgg16, vit_b_16 ..."""
    cut: str = ""
    """Last layer kept, by torchvision's name ("features.13", "layer3"); empty keeps the whole trunk."""
    pooling: Pooling = "avg"
    """avg: mean over space (SPoC). gem: generalised mean with a trainable power. mac: maximum. rmac: sum of the maxima
    of square regions. grid: means over grid x grid cells."""
    gem_per_channel: bool = False
    """gem: a power for each channel instead of one for all."""
    grid: int = 3
    """Cells a side for grid pooling."""
    head: Literal["mlp", "linear", "none"] = "mlp"
    """mlp: Linear -> ReLU -> Linear to `embedding_dim`. linear: one Linear, which started from a bundle's whitening
    goes on training it. none: the pooled features themselves."""
    embedding_dim: int = 128
    """Length of the embedding with a head; without one it is what the pooling gives."""
    image_size: int = 218
    """Side of the square input, pixels; with `keep_aspect` the longer side, at most."""
    keep_aspect: bool = False
    """Take photos in their own shape instead of squares; smaller ones are never enlarged."""
    scales: tuple[float, ...] = (1.0,)
    """Sizes, as parts of the input's, at which each photo is described; they are averaged, see `EmbeddingNet`."""
    flip: bool = False
    """Embed the mirrored image too and take the L2-normalised sum: better, at twice the time."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(self.scales))  # JSON has lists only
        check_backbone(self.backbone)
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"Unknown pooling '{self.pooling}'. Choose one of: {', '.join(get_args(Pooling))}.")
        for name in ("grid", "embedding_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        if not self.scales or not all(0 < scale <= 4 for scale in self.scales):
            raise ValueError(
                f"scales are {self.scales}, expected one or more above 0 and up to 4, for example 1 0.7071."
            )
        if self.image_size < 32:
            raise ValueError(f"image_size must be 32 or more (the trunk halves it five times), got {self.image_size}.")
