"""The embedding network and its bundle: trunk -> pooling -> L2 -> head -> L2 (-> whitening -> L2), from a spec alone.

A bundle is a sealed folder: `model.safetensors` (every tensor), `model.json` (the spec), `manifest.json`.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from retrieval import artifacts, backbones, pooling, scales
from retrieval.artifacts import Folder

WEIGHTS_FILE, SPEC_FILE = "model.safetensors", "model.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """What the network is. Enough, with its weights file, to build it again."""

    backbone: str = "mobilenet_v2"
    """Name of a torchvision network, see retrieval/backbones.py: mobilenet_v2, resnet50, vgg16, vit_b_16 ..."""
    cut: str = ""
    """Last layer kept, by torchvision's name ("features.13", "layer3"); empty keeps the whole trunk."""
    pooling: Literal["avg", "gem", "mac", "rmac", "grid"] = "avg"
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
    whitening: Literal["none", "learned", "pca"] = "none"
    """How the whitening that is applied last was learned (python -m ray_jobs.whiten)."""
    whitening_dim: int = 0
    """Dimensions that whitening keeps; 0 without whitening."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(self.scales))  # JSON has lists only
        backbones.check_backbone(self.backbone)
        if self.pooling not in pooling.POOLINGS:
            raise ValueError(f"Unknown pooling '{self.pooling}'. Choose one of: {', '.join(pooling.POOLINGS)}.")
        for name in ("grid", "embedding_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        if not self.scales or not all(0 < scale <= 4 for scale in self.scales):
            raise ValueError(
                f"scales are {self.scales}, expected one or more above 0 and up to 4, for example 1 0.7071."
            )
        if (self.whitening == "none") != (self.whitening_dim == 0):
            raise ValueError(
                f"whitening is '{self.whitening}' with {self.whitening_dim} dimensions. It is learned from a trained "
                f"model's embeddings: python -m ray_jobs.whiten."
            )
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
    """trunk -> pooling -> L2 -> head -> L2 -> mean over scales -> L2 -> whitening -> L2.

    `fingerprint` is its bundle's, empty until saved or loaded. With several scales the image is resized (bilinear,
    align_corners=False), described at each, and v = ((1/S) sum_s v_s^m)^(1/m), then L2; m is `power`
    (Radenovic et al., arXiv:1711.02512, sec. 5.1). Whitening is y = P (x - mean), then L2.
    """

    whitening_projection: Tensor
    whitening_mean: Tensor

    def __init__(self, spec: ModelSpec, trunk: nn.Sequential) -> None:
        super().__init__()
        config = spec.config
        self.spec, self.fingerprint = spec, ""
        self.trunk = backbones.cut_after(trunk, config.cut) if config.cut else trunk
        self.pool = self._build_pool()
        self.num_features = int(self.pool(self._probe()).shape[1])
        self.head, self.base_dim = self._build_head()
        self.dim = config.whitening_dim or self.base_dim
        if config.whitening != "none":
            self._register_whitening(torch.zeros(config.whitening_dim, self.base_dim), torch.zeros(self.base_dim))
        self.eval()

    @torch.no_grad()
    def _probe(self) -> Tensor:
        """The trunk's output for a small black image: tells how many channels there are."""
        was_training = self.trunk.training
        maps = self.trunk.eval()(torch.zeros(1, 3, 64, 64))
        self.trunk.train(was_training)
        return maps

    def _build_pool(self) -> nn.Module:
        config = self.spec.config
        if config.pooling == "grid":
            return pooling.GridPool(config.grid)
        if config.pooling == "gem" and config.gem_per_channel:
            return pooling.GeMPool(num_channels=int(self._probe().shape[1]))
        return pooling.POOLINGS[config.pooling]()

    def _build_head(self) -> tuple[nn.Module, int]:
        config = self.spec.config
        if config.head == "none":
            return nn.Identity(), self.num_features
        if config.head == "linear":
            return nn.Linear(self.num_features, config.embedding_dim), config.embedding_dim
        return mlp_head(self.num_features, config.embedding_dim), config.embedding_dim

    def _register_whitening(self, projection: Tensor, mean: Tensor) -> None:
        self.register_buffer("whitening_projection", projection.float())
        self.register_buffer("whitening_mean", mean.float())

    @property
    def power(self) -> float:
        """The exponent of the mean over scales: GeM's shared p where the descriptor is GeM's own, else 1."""
        config = self.spec.config
        plain = config.pooling == "gem" and config.head == "none" and not config.gem_per_channel
        return float(self.pool.p.detach()) if plain and isinstance(self.pool, pooling.GeMPool) else 1.0

    def features(self, maps: Tensor) -> Tensor:
        """Pooled, L2-normalised features (B, F) of the trunk's output (B, C, h, w)."""
        return pooling.l2n(self.pool(maps))

    def from_maps(self, maps: Tensor) -> Tensor:
        """Embeddings (B, D) float32, unit norm, of the trunk's output (B, C, h, w), at one scale, without whitening."""
        with torch.autocast(maps.device.type, enabled=False):
            return pooling.l2n(self.head(self.features(maps).float()))

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of normalised images.

        Scales that would leave a side shorter than 32 pixels are left out, see `scales.usable_scales`.

        Args:    x: (B, 3, H, W) float, ImageNet-normalised RGB.
        Returns: (B, D) float32, unit norm.
        """
        used = scales.usable_scales(x.shape[2], x.shape[3], self.spec.config.scales)
        found = [self.from_maps(self.trunk(scales.at_scale(x, scale))) for scale in used]
        return self.whiten(scales.mean_over_scales(found, self.power if len(found) > 1 else 1.0))

    def whiten(self, x: Tensor) -> Tensor:
        """(B, F) -> (B, D): y = P (x - mean), then L2; x itself for a network without whitening."""
        if self.spec.config.whitening == "none":
            return x
        return pooling.l2n((x - self.whitening_mean) @ self.whitening_projection.T)

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float32, channels_last in memory, (x/255 - mean) / std."""
        mean = torch.tensor(self.spec.mean, device=pixels.device)
        std = torch.tensor(self.spec.std, device=pixels.device)
        return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def with_scales(net: EmbeddingNet, wanted: Sequence[float]) -> EmbeddingNet:
    """A copy that describes photos at these scales.

    Raises: ValueError if it has whitening, which was learned at other scales.
    """
    if net.spec.config.whitening != "none":
        raise ValueError("The model's whitening was learned at its own scales. Name the model without whitening.")
    return _with_config(net, dataclasses.replace(net.spec.config, scales=tuple(wanted)))


def with_whitening(
    net: EmbeddingNet, projection: Tensor, mean: Tensor, method: Literal["learned", "pca"]
) -> EmbeddingNet:
    """A copy with whitening applied last: y = projection (x - mean), then L2.

    Args: projection: (D, F) float. mean: (F,) float, F the length of the net's embedding.
    """
    if projection.shape[1:] != mean.shape or mean.shape != (net.base_dim,):
        raise ValueError(
            f"Whitening of shapes {tuple(projection.shape)} and {tuple(mean.shape)} does not fit embeddings of length "
            f"{net.base_dim}; expected (D, {net.base_dim}) and ({net.base_dim},)."
        )
    config = dataclasses.replace(net.spec.config, whitening=method, whitening_dim=len(projection))
    other = _with_config(net, config)
    other._register_whitening(projection, mean)
    other.dim = len(projection)
    return other


def _with_config(net: EmbeddingNet, config: ModelConfig) -> EmbeddingNet:
    other = copy.deepcopy(net)
    other.spec, other.fingerprint = dataclasses.replace(net.spec, config=config), ""
    return other


def mlp_head(num_features: int, dim: int) -> nn.Sequential:
    """Linear(F, D) -> ReLU -> Linear(D, D): the published face head."""
    return nn.Sequential(nn.Linear(num_features, dim), nn.ReLU(), nn.Linear(dim, dim))


def build(
    config: ModelConfig, *, weights: str = "none", preparation: Mapping[str, Any] | None = None, seed: int = 0
) -> EmbeddingNet:
    """A network with a fresh head. `weights`: see `backbones.build_trunk`, or the folder of another bundle.

    A bundle given as weights must have the same trunk; its pooling and head are taken too where their shapes agree. A
    linear head starts from the bundle's whitening, if it has one of that length.

    Raises: ValueError for weights that do not fit, or a config with whitening, which is learned and not built.
    """
    if config.whitening != "none":
        raise ValueError("A new network has no whitening: it is learned from embeddings (python -m ray_jobs.whiten).")
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
    if (ours.pooling, ours.gem_per_channel) == (theirs.pooling, theirs.gem_per_channel):
        net.pool.load_state_dict(other.pool.state_dict())
    if (ours.head, ours.pooling, net.num_features, net.dim) == (
        theirs.head,
        theirs.pooling,
        other.num_features,
        other.dim,
    ):
        net.head.load_state_dict(other.head.state_dict())
    elif ours.head == "linear" and theirs.head == "none" and other.dim == net.dim and theirs.whitening != "none":
        assert isinstance(net.head, nn.Linear)
        with torch.no_grad():  # W = P, b = -P m
            net.head.weight.copy_(other.whitening_projection)
            net.head.bias.copy_(-(other.whitening_projection @ other.whitening_mean))
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


def kept_counts(manifest: artifacts.Manifest) -> dict[str, Any]:
    """What a bundle says of its training, for the bundles that are made from it."""
    return {name: manifest.counts[name] for name in ("best_epoch", "best_val_mAP") if name in manifest.counts}


def keep_history(bundle: Folder, out: Folder) -> None:
    """Copy what a bundle holds about its training."""
    for name in ("history.json", "tuples.jpg"):
        if bundle.exists(name):
            out.write_bytes(name, bundle.read_bytes(name))


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
