"""Settings of the network, and the names that it knows. No heavy library is imported."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
Engine = Literal["auto", "torch", "onnxruntime"]
Whitening = Literal["none", "learned", "pca"]
AdapterKind = Literal["none", "whitening", "linear", "residual"]
Pooling = Literal["avg", "gem", "mac", "rmac", "grid"]


TIMM = "timm:"
"""How the backbone of a network of the timm library begins, see `families.timm_trunks`."""

FROZEN = "onnx:"
"""How the backbone of a network begins that somebody else trained and that is taken as it is."""

# Why a frozen network has no such setting. What is left at its default counts as not asked for.
_NOT_FROZEN = {
    "cut": "its file ends where its author ended it",
    "pooling": "what it pools is inside its file",
    "gem_per_channel": "what it pools is inside its file",
    "grid": "what it pools is inside its file",
    "scales": "its embeddings at other sizes are not its author's, and nothing was trained to average them",
}

_TIMM_NAME = re.compile(r"timm:[a-z0-9_]+(\.[a-z0-9_]+)?")

LEAST_SIDE = 32
"""Pixels; the trunks halve a side five times."""


def usable_scales(height: int, width: int, scales: Sequence[float]) -> list[float]:
    """The scales that leave each side at least 32 pixels, or the largest if none does.

    Smaller images say nothing that the others do not, and make empty maps.
    """
    return [scale for scale in scales if min(height, width) * scale >= LEAST_SIDE] or [max(scales)]


def check_backbone(name: str) -> str:
    """The name itself; of timm's networks it is not known here whether there is one of that name.

    Raises: ValueError for an unknown one, listing the known.
    """
    if name not in BACKBONES and not _TIMM_NAME.fullmatch(name):
        raise ValueError(
            f"Unknown backbone '{name}'. Choose one of: {', '.join(BACKBONES)}; timm:NAME, a network of the timm "
            f"library; or onnx:FILE, a network in ONNX."
        )
    return name


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """What the network is. Enough, with its weights file, to build it again."""

    backbone: str = "mobilenet_v2"
    """Name of a torchvision network, see retrieval/models/settings.py: mobilenet_v2, resnet50, vgg16, vit_b_16 ... Or
    of timm's: timm:convnext_tiny, timm:vit_small_patch16_dinov3. Or a frozen network: onnx:sface (known by name),
    onnx:FILE or onnx:FOLDER; head, pooling and sizes are then its own."""
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
        if self.is_frozen:
            self._check_frozen()
        else:
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
        if self.image_size < 32 and not self.is_frozen:
            raise ValueError(f"image_size must be 32 or more (the trunk halves it five times), got {self.image_size}.")

    @property
    def is_frozen(self) -> bool:
        """Whether the network is somebody else's, taken as it is: nothing of it is trained, cut or pooled here."""
        return self.backbone.startswith(FROZEN)

    def _check_frozen(self) -> None:
        if self.backbone == FROZEN:
            raise ValueError("backbone 'onnx:' names no network. Write onnx:sface, onnx:FILE or onnx:FOLDER.")
        default = type(self)()
        for name, why in _NOT_FROZEN.items():
            if (value := getattr(self, name)) != getattr(default, name):
                raise ValueError(f"{name} is {value!r}, and {self.backbone} takes none: {why}. Leave {name} out.")
        if self.image_size < 8:
            raise ValueError(f"image_size must be 8 or more, got {self.image_size}.")
        if self.head == "linear":
            raise ValueError(
                f"head is 'linear', and {self.backbone} takes none: a head is trained, and its own output is the "
                f"embedding. Leave head out, or learn whitening: python -m ray_jobs.whiten."
            )
