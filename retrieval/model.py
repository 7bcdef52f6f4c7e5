"""The embedding network and its bundle: trunk -> pooling -> L2 -> head -> L2, built from a spec alone.

A bundle is a sealed folder: `model.safetensors` (every tensor), `model.json` (the spec), `manifest.json`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from retrieval import artifacts, backbones, pooling
from retrieval.artifacts import Folder

WEIGHTS_FILE, SPEC_FILE = "model.safetensors", "model.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """What the network is. Enough, with its weights file, to build it again."""

    backbone: str = "mobilenet_v2"
    """Name of a torchvision network: mobilenet_v2, resnet18/34/50/101/152, vgg16."""
    cut: str = ""
    """Last layer kept, by torchvision's name ("features.13", "layer3"); empty keeps the whole trunk."""
    pooling: Literal["avg", "gem", "mac", "rmac", "grid"] = "avg"
    """avg: mean over space (SPoC). gem: generalised mean with a trainable power. mac: maximum. rmac: sum of the maxima
    of square regions. grid: means over grid x grid cells."""
    grid: int = 3
    """Cells a side for grid pooling."""
    head: Literal["mlp", "none"] = "mlp"
    """mlp: Linear -> ReLU -> Linear to `embedding_dim`. none: the pooled features themselves."""
    embedding_dim: int = 128
    """Length of the embedding with a head; without one it is what the pooling gives."""
    image_size: int = 218
    """Side of the square input, pixels."""
    flip: bool = False
    """Embed the mirrored image too and take the L2-normalised sum: better, at twice the time."""

    def __post_init__(self) -> None:
        backbones.check_backbone(self.backbone)
        if self.pooling not in pooling.POOLINGS:
            raise ValueError(f"Unknown pooling '{self.pooling}'. Choose one of: {', '.join(pooling.POOLINGS)}.")
        for name in ("grid", "embedding_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        if self.image_size < 32:
            raise ValueError(f"image_size must be 32 or more (the trunk halves it five times), got {self.image_size}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """A bundle's model.json: the network, its pixel normalisation, and how a photo is prepared for it."""

    config: ModelConfig
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    preparation: Mapping[str, Any] = field(default_factory=dict)
    """The collection's ingest settings (crop, margin, detector): what a query photo must go through as well."""


class EmbeddingNet(nn.Module):
    """trunk -> pooling -> L2 -> head -> L2. `fingerprint` is its bundle's, empty until saved or loaded."""

    def __init__(self, spec: ModelSpec, trunk: nn.Sequential) -> None:
        super().__init__()
        config = spec.config
        self.spec, self.fingerprint = spec, ""
        self.trunk = backbones.cut_after(trunk, config.cut) if config.cut else trunk
        self.pool = pooling.GridPool(config.grid) if config.pooling == "grid" else pooling.POOLINGS[config.pooling]()
        self.num_features = self._count_features()
        self.head = nn.Identity() if config.head == "none" else mlp_head(self.num_features, config.embedding_dim)
        self.dim = self.num_features if config.head == "none" else config.embedding_dim
        self.eval()

    @torch.no_grad()
    def _count_features(self) -> int:
        was_training = self.trunk.training
        size = self.pool(self.trunk.eval()(torch.zeros(1, 3, 64, 64))).shape[1]
        self.trunk.train(was_training)
        return int(size)

    def features(self, maps: Tensor) -> Tensor:
        """Pooled, L2-normalised features (B, F) of the trunk's output (B, C, h, w)."""
        return pooling.l2n(self.pool(maps))

    def from_maps(self, maps: Tensor) -> Tensor:
        """Embeddings (B, D) float32, unit norm, of the trunk's output (B, C, h, w)."""
        with torch.autocast(maps.device.type, enabled=False):
            return pooling.l2n(self.head(self.features(maps).float()))

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of normalised images.

        Args:    x: (B, 3, S, S) float, ImageNet-normalised RGB.
        Returns: (B, D) float32, unit norm.
        """
        return self.from_maps(self.trunk(x))

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 RGB -> (B, 3, S, S) float32, channels_last in memory, (x/255 - mean) / std."""
        mean = torch.tensor(self.spec.mean, device=pixels.device)
        std = torch.tensor(self.spec.std, device=pixels.device)
        return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def mlp_head(num_features: int, dim: int) -> nn.Sequential:
    """Linear(F, D) -> ReLU -> Linear(D, D): the published face head."""
    return nn.Sequential(nn.Linear(num_features, dim), nn.ReLU(), nn.Linear(dim, dim))


def build(
    config: ModelConfig, *, weights: str = "none", preparation: Mapping[str, Any] | None = None, seed: int = 0
) -> EmbeddingNet:
    """A network with a fresh head. `weights`: see `backbones.build_trunk`, or the folder of another bundle.

    A bundle given as weights must have the same trunk; its pooling and head are taken too where their shapes agree.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        spec = ModelSpec(config=config, preparation=dict(preparation or {}))
        folder = Folder.of(weights)
        if weights in ("none", "imagenet") or not folder.exists(SPEC_FILE):
            return EmbeddingNet(spec, backbones.build_trunk(config.backbone, weights))
        net = EmbeddingNet(spec, backbones.build_trunk(config.backbone))
        return _start_from(net, load_bundle(folder))


def _start_from(net: EmbeddingNet, other: EmbeddingNet) -> EmbeddingNet:
    ours, theirs = net.spec.config, other.spec.config
    if (ours.backbone, ours.cut) != (theirs.backbone, theirs.cut):
        raise ValueError(
            f"The bundle given as weights has trunk {theirs.backbone} cut '{theirs.cut}', "
            f"this model asks for {ours.backbone} cut '{ours.cut}'. Set --backbone and --cut to match."
        )
    net.trunk.load_state_dict(other.trunk.state_dict())
    if ours.pooling == theirs.pooling:
        net.pool.load_state_dict(other.pool.state_dict())
    if (ours.head, ours.pooling, net.num_features, net.dim) == (
        theirs.head,
        theirs.pooling,
        other.num_features,
        other.dim,
    ):
        net.head.load_state_dict(other.head.state_dict())
    return net


def digest_of(net: nn.Module) -> str:
    """sha256 hex of all tensors by name: tells two starting points apart."""
    total = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


@torch.no_grad()
def start_head_from_whitening(head: nn.Sequential, projection: Tensor, mean: Tensor, features: Tensor) -> None:
    """Set an mlp head so that it starts as the linear map y = projection (x - mean), ReLU and all.

    The first layer's bias lifts every activation above zero on (nearly) all of `features`, where ReLU is the identity;
    the second layer, the identity matrix, takes the lift away. Training starts from the whitening, not from noise.

    Args:
        head: `mlp_head(F, D)`.
        projection: (D, F) float64. mean: (F,) float64. features: (N, F) float64, those the lift is measured on.
    """
    first, second = head[0], head[2]
    assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
    projected = (features - mean) @ projection.T
    scale = 1.0 / projected.square().sum(dim=1).mean().sqrt()
    lift = 4.0 * projected.std(dim=0)  # four standard deviations: one activation in 30,000 is clipped
    first.weight.copy_(projection * scale)
    first.bias.copy_((lift - projection @ mean) * scale)
    second.weight.copy_(torch.eye(len(lift)))
    second.bias.copy_(-lift * scale)


def save_bundle(
    net: EmbeddingNet,
    folder: Folder | Path | str,
    *,
    config: Any = None,
    inputs: Mapping[str, str] | None = None,
    counts: Mapping[str, Any] | None = None,
    ignore: Sequence[str] = (),
) -> artifacts.Manifest:
    """Write and seal a bundle; files already in the folder (curves, history) are sealed with it. Sets net.fingerprint.

    Args: config, inputs, counts, ignore: as `artifacts.seal`; config defaults to the spec.
    """
    folder = Folder.of(folder)
    tensors = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    folder.write_bytes(WEIGHTS_FILE, safetensors.torch.save(tensors))
    folder.write_json(SPEC_FILE, artifacts.plain(net.spec))
    manifest = artifacts.seal(
        folder,
        kind="model",
        config=net.spec if config is None else config,
        inputs=inputs or {},
        counts={**(counts or {}), "parameters": sum(p.numel() for p in net.parameters()), "embedding_dim": net.dim},
        ignore=ignore,
    )
    net.fingerprint = manifest.fingerprint
    return manifest


def load_spec(folder: Folder | Path | str) -> ModelSpec:
    """The spec of a bundle. Raises: ValueError if there is no sealed bundle, or its spec is not ours."""
    folder = Folder.of(folder)
    artifacts.read_manifest(folder, "model")
    value = folder.read_json(SPEC_FILE)
    known = {f.name for f in dataclasses.fields(ModelConfig)}
    if unknown := sorted(set(value["config"]) - known):
        raise ValueError(f"The bundle {folder} has settings this version does not know: {unknown}. Update the project.")
    return ModelSpec(
        config=ModelConfig(**value["config"]),
        mean=tuple(value["mean"]),
        std=tuple(value["std"]),
        preparation=value["preparation"],
    )


def load_bundle(folder: Folder | Path | str, device: str | torch.device = "cpu") -> EmbeddingNet:
    """The network of a sealed bundle, in eval mode. Checks the weights against the manifest's hash first."""
    folder = Folder.of(folder)
    spec = load_spec(folder)
    manifest = artifacts.read_manifest(folder, "model")
    if artifacts.hash_file(folder, WEIGHTS_FILE) != manifest.files[WEIGHTS_FILE]:
        raise ValueError(
            f"{folder}/{WEIGHTS_FILE} is not the file that was sealed (its hash differs). Copy the bundle again."
        )
    net = EmbeddingNet(spec, backbones.build_trunk(spec.config.backbone))
    if folder.is_local:
        state = safetensors.torch.load_file(Path(folder.path) / WEIGHTS_FILE)
    else:
        state = safetensors.torch.load(folder.read_bytes(WEIGHTS_FILE))
    net.load_state_dict(state)
    net.fingerprint = manifest.fingerprint
    return net.to(device).eval()
