"""A model on storage: `model.safetensors` (every tensor), `model.json` (the spec), `manifest.json`.

A frozen network's bundle holds its file as well (`network.onnx`), with a text tower that too (`text.onnx`) and its
tokenizer (`tokenizer.json`), one with an adapter that (`adapter.safetensors`), and one whose photos are cut to faces
that a network finds holds that network (`detector.onnx`), so that no worker or server has to look for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from retrieval.artifacts.collection import DETECTOR, detector_of
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.history import TUPLES_SHEET, read_history, write_history
from retrieval.artifacts.manifest import Manifest, begin, read_manifest, seal
from retrieval.artifacts.progress import Progress, silent
from retrieval.models import backbones
from retrieval.models.adapters.adapter import read_adapter
from retrieval.models.engines.frozen import FrozenNet, from_file
from retrieval.models.network import EmbeddingNet, Network, with_scales
from retrieval.models.settings import TIMM, ModelConfig
from retrieval.models.spec import (
    ADAPTER_FILE,
    NETWORK_FILE,
    SPEC_FILE,
    WEIGHTS_FILE,
    ModelSpec,
    check_files,
    load_spec,
)
from retrieval.models.text.manifest import TEXT_FILE, TOKENIZER_FILE, TextFiles

_PICTURES = ("*.png", "*.jpg")


def start(
    config: ModelConfig,
    *,
    weights: str = "none",
    preparation: Mapping[str, Any] | None = None,
    seed: int = 0,
    detector: bytes | None = None,
    progress: Progress = silent,
) -> Network:
    """The network that a road begins with: a frozen one as it is, else one with a fresh head, see `build`.

    Args:
        weights: of a frozen network none are asked for; "imagenet" and "none" are ignored.
        detector: the file of the network that finds the faces, where the preparation says yunet.
        progress: is told of a download.

    Raises: ValueError for weights that do not fit, or what `engines.frozen.from_file` raises.
    """
    if not config.is_frozen:
        net = build(config, weights=weights, preparation=preparation, seed=seed)
        net.detector = detector
        return net
    if weights not in ("none", "imagenet"):
        raise ValueError(f"{config.backbone} brings its own weights, and --weights is '{weights}'. Leave it out.")
    return from_file(config, preparation=preparation, detector=detector, progress=progress)


def build(
    config: ModelConfig, *, weights: str = "none", preparation: Mapping[str, Any] | None = None, seed: int = 0
) -> EmbeddingNet:
    """A network with a fresh head. `weights`: see `backbones.build_trunk`, or the folder of another bundle.

    A bundle given as weights must have the same trunk; its pooling and head are taken too where their shapes agree. A
    linear head starts from the bundle's whitening, if it has one of that length.

    Raises: ValueError for weights that do not fit, or a frozen network, which has nothing to train.
    """
    if config.is_frozen:
        raise ValueError(
            f"{config.backbone} is taken as it is, nothing of it is trained: embed with it, or name a backbone of "
            f"torchvision to train."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        spec = ModelSpec(config=config, preparation=dict(preparation or {}), **_normalisation(config))
        folder = Folder.of(weights)
        if weights in ("none", "imagenet") or not folder.exists(SPEC_FILE):
            return EmbeddingNet(spec, backbones.build_trunk(config.backbone, weights))
        net = EmbeddingNet(spec, backbones.build_trunk(config.backbone))
        return _start_from(net, load_bundle(folder))


def _normalisation(config: ModelConfig) -> dict[str, Any]:
    """What the network's pixels were normalised by, where it is not as everywhere."""
    if not config.backbone.startswith(TIMM):
        return {}
    from retrieval.models.families.timm_trunks import normalisation

    mean, std = normalisation(config.backbone)
    return {"mean": mean, "std": std}


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
    mine = (ours.head, ours.pooling, net.num_features, net.base_dim)
    if mine == (theirs.head, theirs.pooling, other.num_features, other.base_dim):
        net.head.load_state_dict(other.head.state_dict())
    elif ours.head == "linear" and theirs.head == "none" and other.dim == net.dim and other.spec.whitening != "none":
        assert isinstance(net.head, nn.Linear)
        with torch.no_grad():  # W = P, b = -P m
            net.head.weight.copy_(other.whitening_projection)
            net.head.bias.copy_(-(other.whitening_projection @ other.whitening_mean))
    return net


def digest_of(net: nn.Module) -> str:
    """sha256 hex of all tensors by name, and of a frozen network's file: tells two starting points apart."""
    total = hashlib.sha256(net.network.sha256.encode() if isinstance(net, FrozenNet) else b"")
    for name, value in sorted(net.state_dict().items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def save_bundle(
    net: Network,
    folder: Folder | Path | str,
    *,
    config: Any = None,
    inputs: Mapping[str, str] | None = None,
    counts: Mapping[str, Any] | None = None,
    ignore: Sequence[str] = (),
    run: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write and seal a bundle; files already in the folder are sealed with it, pictures aside. Sets net.fingerprint.

    Args: config, inputs, counts, ignore, run: as `seal`; config defaults to the spec.
    """
    folder = Folder.of(folder)
    tensors = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    folder.write_bytes(WEIGHTS_FILE, safetensors.torch.save(tensors), about={})
    folder.write_json(SPEC_FILE, net.spec.plain, about={})
    for name, content in (
        *(_files_of(net) if isinstance(net, FrozenNet) else ()),
        (DETECTOR, net.detector),
        (ADAPTER_FILE, None if net.adapter is None else net.adapter.content()),
    ):
        if content is not None:
            folder.write_bytes(name, content, about={})
    manifest = seal(
        folder,
        kind="model",
        config=net.spec.plain if config is None else config,
        inputs=inputs or {},
        counts={**(counts or {}), "parameters": net.num_parameters, "embedding_dim": net.dim},
        ignore=ignore,
        run=run,
        aside=_PICTURES,
    )
    net.fingerprint = manifest.fingerprint
    return manifest


def _files_of(net: FrozenNet) -> list[tuple[str, bytes]]:
    """What was published, by its name in a bundle."""
    text = [] if net.text is None else [(TEXT_FILE, net.text.tower), (TOKENIZER_FILE, net.text.tokenizer)]
    return [(NETWORK_FILE, net.content), *text]


def save_start(net: Network, out: Folder) -> None:
    """Seal a network as it is before training; one that lies there sealed stays."""
    inputs = {"weights": digest_of(net)}
    if begin(out, kind="model", config=net.spec.plain, inputs=inputs) is None:
        save_bundle(net, out, inputs=inputs)


def save_scaled(bundle: Folder, out: Folder, scales: tuple[float, ...]) -> None:
    """Seal the network of a bundle as one that describes photos at several scales; one that lies there sealed stays."""
    sealed = read_manifest(bundle, "model")
    inputs = {"model": sealed.fingerprint}
    net = with_scales(load_bundle(bundle), scales)
    if begin(out, kind="model", config=net.spec.plain, inputs=inputs) is None:
        save_bundle(net, out, inputs=inputs, counts=kept_counts(sealed), run=keep_history(bundle, out))


def kept_counts(manifest: Manifest) -> dict[str, Any]:
    """What a bundle says of its training, for the bundles that are made from it."""
    return {name: manifest.counts[name] for name in ("best_epoch", "best_val_mAP") if name in manifest.counts}


def keep_history(bundle: Folder, out: Folder) -> dict[str, Any]:
    """Copy what a bundle tells of its training. Returns: what `save_bundle` takes as `run`."""
    if bundle.exists(TUPLES_SHEET):
        out.write_bytes(TUPLES_SHEET, bundle.read_bytes(TUPLES_SHEET), about={})
    history = read_history(bundle)
    return write_history(out, history) if history else {}


def load_network(folder: Folder | Path | str, device: str | torch.device = "cpu") -> Network:
    """The network of a sealed bundle, in eval mode. Checks its files against the manifest's hashes first."""
    folder = Folder.of(folder)
    spec, manifest = load_spec(folder), check_files(folder)
    net: Network
    if spec.network is not None:
        text = None
        if spec.network.text is not None:
            text = TextFiles(folder.read_bytes(TEXT_FILE), folder.read_bytes(TOKENIZER_FILE))
        net = FrozenNet(spec, folder.read_bytes(NETWORK_FILE), text)
    else:
        net = EmbeddingNet(spec, backbones.build_trunk(spec.config.backbone))
    if folder.is_local:
        state = safetensors.torch.load_file(Path(folder.path) / WEIGHTS_FILE)
    else:
        state = safetensors.torch.load(folder.read_bytes(WEIGHTS_FILE))
    net.load_state_dict(state)
    net.fingerprint, net.detector = manifest.fingerprint, detector_of(folder)
    if (adapter := read_adapter(folder, spec.adapter, manifest)) is not None:
        net.adapter, net.dim = adapter, adapter.dim
    return net.to(device).eval()


def load_bundle(folder: Folder | Path | str, device: str | torch.device = "cpu") -> EmbeddingNet:
    """`load_network` for those who need its layers.

    Raises: ValueError for a frozen network, which is taken as it is.
    """
    net = load_network(folder, device)
    if not isinstance(net, EmbeddingNet):
        raise ValueError(
            f"The bundle {folder} holds the frozen network {net.spec.config.backbone}: no layers to train or to "
            f"cut, and no scales. Name a bundle that was trained here."
        )
    return net
