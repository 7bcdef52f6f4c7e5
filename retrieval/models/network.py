"""The embedding network and its bundle: trunk -> pooling -> L2 -> head -> L2 (-> whitening -> L2), from a spec alone.

A bundle is a sealed folder: `model.safetensors` (every tensor), `model.json` (the spec), `manifest.json`; a frozen
network's holds its file as well, see `engines.frozen`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from retrieval.models import pooling, trunks
from retrieval.models.adapters.adapter import Adapter
from retrieval.models.pooling import at_scale, mean_over_scales
from retrieval.models.settings import usable_scales
from retrieval.models.spec import ModelSpec


class Network(nn.Module):
    """What every network has, trained here or not: (B, 3, H, W) of `normalise` -> `forward` -> (B, D), unit norm.

    `fingerprint` is its bundle's, empty until saved or loaded; `detector` is the file of the network that finds the
    faces its photos are cut to, None where none is needed. Whitening is y = P (x - mean), then L2. `adapter` is a map
    of what `forward` gives, summed with the mirror image where that is added: whoever embeds applies it last. `dim` is
    the length of an embedding with all of it.
    """

    whitening_projection: Tensor
    whitening_mean: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec, self.fingerprint = spec, ""
        self.detector: bytes | None = None
        self.adapter: Adapter | None = None
        self.base_dim = self.dim = 0

    @property
    def num_parameters(self) -> int:
        """Numbers that were learned, buffers aside."""
        return sum(p.numel() for p in self.parameters())

    def _set_dim(self, base_dim: int) -> None:
        """Args: base_dim: length of the embedding before whitening."""
        self.base_dim, self.dim = base_dim, self.spec.whitening_dim or base_dim
        if self.spec.whitening != "none":
            self._register_whitening(torch.zeros(self.dim, base_dim), torch.zeros(base_dim))

    def _register_whitening(self, projection: Tensor, mean: Tensor) -> None:
        self.register_buffer("whitening_projection", projection.float())
        self.register_buffer("whitening_mean", mean.float())

    def whiten(self, x: Tensor) -> Tensor:
        """(B, F) -> (B, D): y = P (x - mean), then L2; x itself for a network without whitening."""
        if self.spec.whitening == "none":
            return x
        return pooling.l2n((x - self.whitening_mean) @ self.whitening_projection.T)

    def adapted(self, x: Tensor) -> Tensor:
        """(B, F) -> (B, D) by the adapter, without a gradient; x itself for a network without one."""
        if self.adapter is None:
            return x
        return torch.from_numpy(self.adapter(x.float().numpy(force=True))).to(x.device)

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float32, channels_last in memory, (x/255 - mean) / std."""
        mean = torch.tensor(self.spec.mean, device=pixels.device)
        std = torch.tensor(self.spec.std, device=pixels.device)
        return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)


Net = TypeVar("Net", bound=Network)


class EmbeddingNet(Network):
    """trunk -> pooling -> L2 -> head -> L2 -> mean over scales -> L2 -> whitening -> L2.

    With several scales the image is resized (bilinear, align_corners=False), described at each, and
    v = ((1/S) sum_s v_s^m)^(1/m), then L2; m is `power` (Radenovic et al., arXiv:1711.02512, sec. 5.1).
    """

    def __init__(self, spec: ModelSpec, trunk: nn.Sequential) -> None:
        super().__init__(spec)
        config = spec.config
        self.trunk = trunks.cut_after(trunk, config.cut) if config.cut else trunk
        self.pool = self._build_pool()
        self.num_features = int(self.pool(self._probe()).shape[1])
        self.head, base_dim = self._build_head()
        self._set_dim(base_dim)
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

        Scales that would leave a side shorter than 32 pixels are left out, see `usable_scales`.

        Args:    x: (B, 3, H, W) float, ImageNet-normalised RGB.
        Returns: (B, D) float32, unit norm.
        """
        used = usable_scales(x.shape[2], x.shape[3], self.spec.config.scales)
        found = [self.from_maps(self.trunk(at_scale(x, scale))) for scale in used]
        return self.whiten(mean_over_scales(found, self.power if len(found) > 1 else 1.0))


def with_scales(net: EmbeddingNet, wanted: Sequence[float]) -> EmbeddingNet:
    """A copy that describes photos at these scales.

    Raises: ValueError if it has whitening or an adapter, which was learned at other scales.
    """
    _must_have_no_adapter(net)
    if net.spec.whitening != "none":
        raise ValueError("The model's whitening was learned at its own scales. Name the model without whitening.")
    return _with_spec(net, config=dataclasses.replace(net.spec.config, scales=tuple(wanted)))


def with_whitening(net: Net, projection: Tensor, mean: Tensor, method: Literal["learned", "pca"]) -> Net:
    """A copy with whitening applied last: y = projection (x - mean), then L2.

    Args: projection: (D, F) float. mean: (F,) float, F the length of the net's embedding.

    Raises: ValueError if it does not fit, or the net has an adapter.
    """
    _must_have_no_adapter(net)
    if projection.shape[1:] != mean.shape or mean.shape != (net.base_dim,):
        raise ValueError(
            f"Whitening of shapes {tuple(projection.shape)} and {tuple(mean.shape)} does not fit embeddings of length "
            f"{net.base_dim}; expected (D, {net.base_dim}) and ({net.base_dim},)."
        )
    other = _with_spec(net, whitening=method, whitening_dim=len(projection))
    other._register_whitening(projection, mean)
    other.dim = len(projection)
    return other


def with_adapter(net: Net, adapter: Adapter) -> Net:
    """A copy whose embeddings go through an adapter last.

    Raises: ValueError if it takes embeddings of another length, or the net has an adapter.
    """
    _must_have_no_adapter(net)
    if adapter.takes != net.dim:
        raise ValueError(f"The adapter takes embeddings of length {adapter.takes}, and the network gives {net.dim}.")
    other = _with_spec(net, adapter=adapter.kind)
    other.adapter, other.dim = adapter, adapter.dim
    return other


def _must_have_no_adapter(net: Network) -> None:
    if net.spec.adapter != "none":
        raise ValueError(
            "The model has an adapter, which was trained on its embeddings as they are and comes last. Name the model "
            "without it; then adapt again."
        )


def _with_spec(net: Net, **changes: Any) -> Net:
    other = copy.deepcopy(net)
    other.spec, other.fingerprint = dataclasses.replace(net.spec, **changes), ""
    return other


def mlp_head(num_features: int, dim: int) -> nn.Sequential:
    """Linear(F, D) -> ReLU -> Linear(D, D): the published face head."""
    return nn.Sequential(nn.Linear(num_features, dim), nn.ReLU(), nn.Linear(dim, dim))
