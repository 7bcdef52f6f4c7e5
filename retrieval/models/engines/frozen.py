"""A network that somebody else trained, in ONNX, taken as it is: checked by what its file says of itself, then run.

Its bundle holds the file itself (`network.onnx`), its manifest in model.json, and `model.safetensors` with whitening
where one was learned for it. onnxruntime runs it, on the GPU where there is one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from retrieval.artifacts.progress import Progress, silent
from retrieval.images.settings import stored_config
from retrieval.models.engines import graph, runtime
from retrieval.models.engines.manifest import NetworkManifest, read_network
from retrieval.models.network import Network
from retrieval.models.pooling import l2n
from retrieval.models.settings import FROZEN, ModelConfig
from retrieval.models.spec import ModelSpec

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

_TYPES = ("float32", "uint8")
_ANY_SIDE = 224  # of the drawn images that try out a network which takes any size
_LEAST_COSINE = 0.999  # of the embeddings of one photo, alone and beside others


class FrozenNet(Network):
    """A frozen network: (B, 3, H, W) of `normalise` -> onnxruntime -> L2 -> whitening -> L2.

    `content` is its file. The session is opened on first use, and again in each process that it is sent to.
    """

    def __init__(self, spec: ModelSpec, content: bytes) -> None:
        """Raises: ValueError if the file is not what the spec's manifest says, or does not run."""
        super().__init__(spec)
        assert spec.network is not None
        self.network, self.content = spec.network, content
        _check_sha(self.network, content)
        runtime.check(content, _called(self.network))
        self._graph = graph.read_graph(content)
        self._output = _check_shapes(self.network, self._graph)
        self._set_dim(self.network.dim)
        self._session: onnxruntime.InferenceSession | None = None
        self._threads: int | None = None
        self.eval()

    @property
    def num_parameters(self) -> int:
        """Numbers that the file holds."""
        return self._graph.num_parameters

    def open(self, threads: int | None = None) -> str:
        """Open the session, with so many threads a run. Returns: the number format in words, for manifests."""
        self._threads, self._session = threads, None
        self._opened()
        return "onnxruntime"

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float32 RGB: (x/255 - mean) / std, or 0 to 255 as they are."""
        x = pixels.float()
        if self.network.mean:
            mean, std = (torch.tensor(values, device=x.device) for values in (self.network.mean, self.network.std))
            x = (x / 255 - mean) / std
        return x.permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of normalised images.

        Args:    x: (B, 3, H, W) float32, RGB, as `normalise` gives it.
        Returns: (B, D) float32 on x's device, unit norm.

        Raises: ValueError for an output that is no number.
        """
        return self.whiten(l2n(torch.from_numpy(self._run(x.numpy(force=True))).to(x.device)))

    def _run(self, x: np.ndarray) -> np.ndarray:
        """(B, 3, H, W) float32 RGB -> (B, dim) float32, as the network gives it."""
        given = self._graph.inputs[0]
        if self.network.channels == "BGR":
            x = x[:, ::-1]
        if self.network.layout == "NHWC":
            x = x.transpose(0, 2, 3, 1)
        x = np.ascontiguousarray(x, dtype=given.dtype)
        session, step = self._opened(), given.shape[0] or len(x)
        parts = [x[start : start + step] for start in range(0, len(x), step)]
        try:
            out = np.concatenate([_run_padded(session, self._output, given.name, part, step) for part in parts])
        except Exception as error:  # onnxruntime's errors share no class but this
            raise ValueError(f"{_called(self.network)} failed on input {x.shape}: {str(error)[:200]}") from error
        out = out.reshape(len(x), -1).astype(np.float32)
        if not np.isfinite(out).all():
            raise ValueError(
                f"{_called(self.network)} gives values that are no numbers (NaN or infinite). Check mean, std and "
                f"channels of its manifest, or export it again in float32."
            )
        return out

    def _opened(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            # Unpacked when it is opened: else onnxruntime unpacks all weights for each photo.
            entries = {"session.disable_quant_qdq": "1"} if self._graph.weights_are_packed else {}
            self._session = runtime.open_session(self._graph.content, threads=self._threads, entries=entries)
        return self._session

    def __getstate__(self) -> dict[str, Any]:
        """Without the session, which cannot be copied or sent."""
        return {**self.__dict__, "_session": None}


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
    network, content = read_network(config.backbone, progress)
    preparation = dict(preparation or {})
    _check_preparation(network, preparation, detector)
    spec = ModelSpec(config=_resolved(config, network), preparation=preparation, network=network)
    net = FrozenNet(spec, content)
    net.detector = detector if preparation and stored_config(preparation).needs_network else None
    _try_out(net)
    trained = f", trained on {network.trained_on}" if network.trained_on else ""
    logger.info("network %s: licence %s%s", network.name, network.licence, trained)
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


def _check_preparation(network: NetworkManifest, preparation: Mapping[str, Any], detector: bytes | None) -> None:
    """Raises: ValueError for photos prepared otherwise than the network was trained on."""
    if not preparation:
        return
    crop = preparation.get("crop")
    if network.alignment == "five-points" and crop not in ("aligned", "none"):
        raise ValueError(
            f"{network.name} takes faces aligned by five points, and these photos are prepared with crop '{crop}'. "
            f"Ingest them with crop aligned and margin 0; or with crop none, where they are aligned already."
        )
    if crop == "aligned" and network.alignment == "five-points" and preparation.get("margin") != 0:
        raise ValueError(
            f"{network.name} takes aligned faces with no room around them, and these have margin "
            f"{preparation.get('margin')}. Ingest them with margin 0."
        )
    if crop == "fit" and network.size:
        raise ValueError(
            f"{network.name} takes squares of {network.size} pixels, and these photos are prepared with crop 'fit', in "
            f"their own shape. Ingest them with crop none."
        )
    if stored_config(preparation).needs_network and detector is None:
        raise ValueError(
            "The bundle finds faces by yunet, and was given no file of it. See python -m ray_jobs.weights."
        )


def _check_sha(network: NetworkManifest, content: bytes) -> None:
    got = hashlib.sha256(content).hexdigest()
    if network.sha256 != got:
        raise ValueError(
            f"{_called(network)} is another file than its manifest names: sha256 {got[:16]}..., expected "
            f"{network.sha256[:16]}.... Copy it again, or write a manifest of this one."
        )


def _check_shapes(network: NetworkManifest, told: graph.Graph) -> str:
    """What the manifest says against what the file says. Returns: the name of the output taken."""
    called = _called(network)
    if len(told.inputs) != 1:
        names = ", ".join(value.name for value in told.inputs)
        raise ValueError(f"{called} has {len(told.inputs)} inputs ({names}), expected one: the photo.")
    given = told.inputs[0]
    if given.dtype not in _TYPES:
        raise ValueError(f"{called} takes {given.dtype}, expected {' or '.join(_TYPES)}. Export it again.")
    if given.dtype == "uint8" and network.mean:
        raise ValueError(f"{called} takes whole values of 0 to 255, and its manifest has mean and std. Leave them out.")
    axes = (1, 2, 3) if network.layout == "NCHW" else (3, 1, 2)
    if len(given.shape) != 4 or given.shape[axes[0]] not in (3, graph.ANY):
        raise ValueError(
            f"{called} takes {_shown(given)}, and its manifest says {network.layout}: expected 4 dimensions, at place "
            f"{axes[0] + 1} of 3 channels. Correct layout."
        )
    sides = (given.shape[axes[1]], given.shape[axes[2]])
    if any(side not in (network.size, graph.ANY) for side in sides):
        size = network.size or "any"
        raise ValueError(
            f"{called} takes {sides[0]} x {sides[1]} pixels, and its manifest says size {size}. Correct it."
        )
    return _check_output(network, told.outputs)


def _check_output(network: NetworkManifest, outputs: tuple[graph.Tensor, ...]) -> str:
    names = [value.name for value in outputs]
    if network.output not in ("", *names) or (not network.output and len(names) != 1):
        asked = f"its manifest says output '{network.output}'" if network.output else "its manifest names none"
        raise ValueError(f"{_called(network)} has the outputs {', '.join(names)}, and {asked}. Name one of them.")
    taken = outputs[names.index(network.output)] if network.output else outputs[0]
    if taken.shape and graph.ANY not in taken.shape[1:]:
        length = int(np.prod(taken.shape[1:]))
        if length != network.dim:
            raise ValueError(f"{_called(network)} gives {_shown(taken)}, and its manifest says dim {network.dim}.")
    return taken.name


def _try_out(net: FrozenNet) -> None:
    """Raises: ValueError if drawn images do not give embeddings that differ, the same alone and beside others."""
    side = net.network.size or _ANY_SIDE
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.integers(0, 256, (3, 3, 8, 8)).astype(np.float32))
    drawn = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").to(torch.uint8)
    x = net.normalise(drawn.permute(0, 2, 3, 1))
    together = net._run(x.numpy())
    called, length = _called(net.network), together.shape[1]
    if length != net.network.dim:
        raise ValueError(f"{called} gives {length} values a photo, and its manifest says dim {net.network.dim}.")
    if not together.any(axis=1).all() or np.ptp(together, axis=0).max() == 0:
        raise ValueError(f"{called} gives the same for three drawn images. Check mean, std and output of its manifest.")
    alone = torch.from_numpy(np.concatenate([net._run(one[None].numpy()) for one in x]))
    if float((l2n(alone) * l2n(torch.from_numpy(together))).sum(dim=1).min()) < _LEAST_COSINE:
        raise ValueError(
            f"{called} gives a photo another embedding alone than beside others. Export it for inference (eval mode)."
        )


def _run_padded(session: Any, output: str, name: str, part: np.ndarray, step: int) -> np.ndarray:
    """One run of exactly `step` photos, the last repeated where there are fewer. Returns: those of `part`."""
    full = part if len(part) == step else np.concatenate([part, np.repeat(part[-1:], step - len(part), axis=0)])
    return session.run([output], {name: full})[0].reshape(step, -1)[: len(part)]


def _called(network: NetworkManifest) -> str:
    return f"The network {network.name}"


def _shown(tensor: graph.Tensor) -> str:
    return f"'{tensor.name}' ({', '.join(str(side) if side else 'any' for side in tensor.shape)})"
