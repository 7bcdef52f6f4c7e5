"""A network that somebody else trained, in ONNX, taken as it is: checked by what its file says of itself, then run.

Its bundle holds the file itself (`network.onnx`), its manifest in model.json, and `model.safetensors` with whitening
where one was learned for it; with a text tower also that (`text.onnx`) and its tokenizer. onnxruntime runs it, on the
GPU where there is one.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrieval.artifacts.progress import Progress, silent
from retrieval.images.settings import stored_config
from retrieval.models.engines.manifest import NetworkManifest, read_network
from retrieval.models.engines.session import FrozenFile, name_of
from retrieval.models.network import Network
from retrieval.models.pooling import l2n
from retrieval.models.settings import FROZEN, ModelConfig
from retrieval.models.spec import ModelSpec, check_prepared
from retrieval.models.text.manifest import TextFiles
from retrieval.models.text.tower import take_text

logger = logging.getLogger(__name__)

_ANY_SIDE = 224  # of the drawn images that try out a network which takes any size
_LEAST_COSINE = 0.999  # of the embeddings of one photo, alone and beside others


class FrozenNet(Network):
    """A frozen network: (B, 3, H, W) of `normalise` -> onnxruntime -> L2 -> whitening -> L2.

    A module of PyTorch's, to be whitened and saved as every other; `session.FrozenBundle` runs one without PyTorch.
    """

    def __init__(self, spec: ModelSpec, content: bytes, text: TextFiles | None = None) -> None:
        """Args: text: of its text tower, where the spec's manifest has one: kept for its bundles, and not run here.

        Raises: ValueError if the file is not what the spec's manifest says.
        """
        super().__init__(spec)
        assert spec.network is not None and (spec.network.text is None) == (text is None)
        self.text = text
        self.network, self.file = spec.network, FrozenFile(spec.network, content)
        self._set_dim(self.network.dim)
        self.eval()

    @property
    def content(self) -> bytes:
        """The file, as it was published."""
        return self.file.content

    @property
    def num_parameters(self) -> int:
        """Numbers that the file holds."""
        return self.file.graph.num_parameters

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float32 RGB: (x/255 - mean) / std, or 0 to 255 as they are."""
        return torch.from_numpy(self.file.normalise(pixels.numpy(force=True))).to(pixels.device)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of normalised images.

        Args:    x: (B, 3, H, W) float32, RGB, as `normalise` gives it.
        Returns: (B, D) float32 on x's device, unit norm.

        Raises: ValueError for an output that is no number.
        """
        return self.whiten(l2n(torch.from_numpy(self.file.run(x.numpy(force=True))).to(x.device)))


def from_file(
    config: ModelConfig,
    *,
    preparation: Mapping[str, Any] | None = None,
    detector: bytes | None = None,
    progress: Progress = silent,
) -> FrozenNet:
    """The frozen network that `config.backbone` names, tried out on drawn images.

    Args:
        preparation: how photos are prepared for it. Empty: not known yet.
        detector: the file of the network that finds the faces; needed where the preparation says yunet.
        progress: is told of a download.

    Raises: ValueError if there is no such network, its file is not what its manifest says, settings or preparation do
        not fit it, or it cannot be run.
    """
    found = read_network(config.backbone, progress)
    network = found.manifest
    preparation = dict(preparation or {})
    if preparation:
        check_prepared(network, preparation)
        if stored_config(preparation).needs_network and detector is None:
            raise ValueError(
                "The bundle finds faces by yunet, and was given no file of it. See python -m ray_jobs.weights."
            )
    if found.text is not None:
        network = dataclasses.replace(network, text=take_text(network, found.text))
    spec = ModelSpec(config=_resolved(config, network), preparation=preparation, network=network)
    net = FrozenNet(spec, found.content, found.text)
    net.detector = detector if preparation and stored_config(preparation).needs_network else None
    _try_out(net)
    trained = f", trained on {network.trained_on}" if network.trained_on else ""
    words = "" if network.text is None else f"; it takes words too, up to {network.text.context} tokens"
    logger.info("network %s: licence %s%s%s", network.name, network.licence, trained, words)
    return net


def _resolved(config: ModelConfig, network: NetworkManifest) -> ModelConfig:
    """The settings with what the manifest decides. Raises: ValueError for one that was set to something else."""
    default, fixed = ModelConfig(), {"embedding_dim": network.dim}
    if network.size:
        fixed["image_size"] = network.size
        if config.keep_aspect:
            raise ValueError(f"keep_aspect was asked for, and {network.name} takes squares of {network.size} pixels.")
    for name, value in fixed.items():
        if (asked := getattr(config, name)) not in (value, getattr(default, name)):
            raise ValueError(f"{name} is {asked}, and {network.name} has {value}. Leave {name} out.")
    return dataclasses.replace(config, backbone=f"{FROZEN}{network.name}", head="none", **fixed)


def _try_out(net: FrozenNet) -> None:
    """Raises: ValueError if drawn images do not give embeddings that differ, the same alone and beside others."""
    side = net.network.size or _ANY_SIDE
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.integers(0, 256, (3, 3, 8, 8)).astype(np.float32))
    drawn = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").to(torch.uint8)
    x = net.normalise(drawn.permute(0, 2, 3, 1))
    together = net.file.run(x.numpy())
    called, length = name_of(net.network), together.shape[1]
    if length != net.network.dim:
        raise ValueError(f"{called} gives {length} values a photo, and its manifest says dim {net.network.dim}.")
    if not together.any(axis=1).all() or np.ptp(together, axis=0).max() == 0:
        raise ValueError(f"{called} gives the same for three drawn images. Check mean, std and output of its manifest.")
    alone = torch.from_numpy(np.concatenate([net.file.run(one[None].numpy()) for one in x]))
    if float((l2n(alone) * l2n(torch.from_numpy(together))).sum(dim=1).min()) < _LEAST_COSINE:
        raise ValueError(
            f"{called} gives a photo another embedding alone than beside others. Export it for inference (eval mode)."
        )
