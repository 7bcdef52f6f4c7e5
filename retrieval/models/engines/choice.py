"""Which engine runs a network on this machine. PyTorch is imported only where it runs, or exports, one.

By rule and not by a stopwatch: the same bundle, collection and machine always give the same engine, and so embeddings
equal to the last bit (docs/decisions/engines.md has the figures).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.models.adapters.adapter import Adapter, read_adapter
from retrieval.models.engines.exported import Exported, ExportedNet
from retrieval.models.engines.kept import keep
from retrieval.models.engines.session import FORMAT, FrozenBundle, check_precision
from retrieval.models.settings import Engine, Precision
from retrieval.models.spec import ModelSpec, load_spec

if TYPE_CHECKING:
    from retrieval.models.network import Network

logger = logging.getLogger(__name__)

EXPORT_PAYS = 2000
"""Photos from which an export, some six seconds, is won back by a small network."""
_GPU_FILES = ("nvidia[0-9]*", "kfd", "dxg")  # NVIDIA, AMD, and either in WSL
_ISA = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_ISA_WITHOUT = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A network that runs. `embed`: (B, H, W, 3) uint8 RGB -> (B, D) float32, unit norm.

    `engine` and `format` say in what, `device` where.
    """

    spec: ModelSpec
    fingerprint: str
    dim: int
    engine: str
    format: str
    device: str
    embed: Callable[[np.ndarray], np.ndarray]


def open_network(
    model: str | Folder | Network,
    *,
    engine: Engine = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
    num_photos: int | None = 0,
    assume_bfloat16: bool = False,
) -> Opened:
    """A bundle, or a network in memory, in the engine that is asked for, or the faster one (auto); with its adapter.

    auto is PyTorch on a GPU, in bfloat16, for a network in memory and for fewer than EXPORT_PAYS photos; for many
    photos also where the hardware multiplies bfloat16 and the network bears it. Else onnxruntime, if it exports. A
    frozen network runs in onnxruntime always.

    Args:
        num_photos: that will be embedded; None: no end, and a few at a time (a service).
        assume_bfloat16: this machine is one of several that do one job, and it was decided for all of them that the
            hardware has bfloat16. Where this one has not, it is emulated: slower, in the same format.

    Raises: ValueError for an engine that does not fit the rest, or onnxruntime asked for a network without export.
    """
    _check(engine, device, precision)
    spec = load_spec(model) if isinstance(model, str | Folder) else model.spec
    opened = _open(model, spec, engine, device, precision, threads, num_photos, assume_bfloat16)
    adapter = _adapter_of(model, spec)
    if adapter is None:
        return opened
    return dataclasses.replace(opened, dim=adapter.dim, embed=lambda pixels: adapter(opened.embed(pixels)))


def _open(
    model: str | Folder | Network,
    spec: ModelSpec,
    engine: Engine,
    device: str,
    precision: Precision,
    threads: int | None,
    num_photos: int | None,
    assume_bfloat16: bool,
) -> Opened:
    """The network alone."""
    in_memory = not isinstance(model, str | Folder)
    if spec.network is not None:
        if engine == "torch":
            raise ValueError(f"engine is torch, and {spec.network.name} is no network of PyTorch's. Use auto.")
        if not in_memory:
            return _open_frozen(model, spec, device, precision, threads)
        return _open_eager(model, spec, device, precision, threads)
    eager = functools.partial(_open_eager, model, spec, device, precision, threads, assume_bfloat16)
    if engine == "torch" or (engine == "auto" and (in_memory or _torch_is_faster(device, precision, num_photos))):
        return eager()
    if engine == "auto" and num_photos is not None and precision == "auto" and (assume_bfloat16 or has_bfloat16()):
        opened = eager()
        if opened.format != "float32":
            return opened
    try:
        return _open_exported(model, spec, threads)
    except (ValueError, OSError, ImportError) as error:
        if engine == "onnxruntime":
            raise ValueError(
                f"engine is onnxruntime, and this network does not run in it: {error} Use auto."
            ) from error
        logger.info("The network stays in PyTorch: %s", error)
        return eager()


def _adapter_of(model: str | Folder | Network, spec: ModelSpec) -> Adapter | None:
    if not isinstance(model, str | Folder):
        return model.adapter
    folder = Folder.of(model)
    return read_adapter(folder, spec.adapter, read_manifest(folder, "model"))


def _check(engine: Engine, device: str, precision: Precision) -> None:
    if engine == "onnxruntime" and precision == "bf16":
        raise ValueError("engine is onnxruntime and precision bf16: it runs networks in float32. Leave out one.")
    if engine == "onnxruntime" and device.startswith("cuda"):
        raise ValueError("engine is onnxruntime and device cuda: on a GPU PyTorch runs networks. Leave out one.")


def _torch_is_faster(device: str, precision: Precision, num_photos: int | None) -> bool:
    """Told without PyTorch."""
    if precision == "bf16" or device.startswith("cuda") or (device == "auto" and _has_gpu()):
        return True
    return num_photos is not None and num_photos < EXPORT_PAYS


def _open_eager(
    model: str | Folder | Network,
    spec: ModelSpec,
    device: str,
    precision: Precision,
    threads: int | None,
    assume_bfloat16: bool = False,
) -> Opened:
    from retrieval.models.bundle import load_network
    from retrieval.models.engines.eager import EagerNet, pick_device

    net = load_network(model) if isinstance(model, str | Folder) else model
    picked = pick_device(device)
    opened = EagerNet(net, picked, precision, threads=threads, assume_bfloat16=assume_bfloat16)
    return Opened(
        spec=spec,
        fingerprint=net.fingerprint,
        dim=net.dim,
        engine="torch" if spec.network is None else "onnxruntime",
        format=opened.format,
        device=str(picked),
        embed=opened.embed,
    )


def _open_frozen(
    folder: str | Folder, spec: ModelSpec, device: str, precision: Precision, threads: int | None
) -> Opened:
    assert spec.network is not None
    check_precision(spec.network, precision)
    opened = FrozenBundle(folder, spec, threads=threads, gpu=device != "cpu")
    if device.startswith("cuda") and opened.device == "cpu":
        raise ValueError(
            f"Device '{device}' was asked for, but onnxruntime finds no GPU here. Use --device auto or cpu."
        )
    return Opened(
        spec=spec,
        fingerprint=opened.fingerprint,
        dim=opened.dim,
        engine="onnxruntime",
        format=FORMAT,
        device=opened.device,
        embed=opened.embed,
    )


def _open_exported(model: str | Folder | Network, spec: ModelSpec, threads: int | None) -> Opened:
    if isinstance(model, str | Folder):
        manifest = read_manifest(Folder.of(model), "model")
        fingerprint, dim = manifest.fingerprint, manifest.counts["embedding_dim"]
        exported = keep(fingerprint, lambda: _export(model, threads))
    else:
        fingerprint, dim, exported = model.fingerprint, model.dim, _export(model, threads)
    opened = ExportedNet(exported, spec.config, threads=threads)
    return Opened(
        spec=spec,
        fingerprint=fingerprint,
        dim=dim,
        engine="onnxruntime",
        format="float32",
        device="cpu",
        embed=opened.embed,
    )


def _export(model: str | Folder | Network, threads: int | None) -> Exported:
    from retrieval.models.bundle import load_bundle
    from retrieval.models.engines.export import export
    from retrieval.models.network import EmbeddingNet

    net = load_bundle(model) if isinstance(model, str | Folder) else model
    assert isinstance(net, EmbeddingNet)
    return export(net, threads=threads)


def _has_gpu() -> bool:
    """Whether there is a GPU that PyTorch can use. It is asked only where the machine has the device files of one."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or not any(any(Path("/dev").glob(name)) for name in _GPU_FILES):
        return False
    import torch

    return torch.cuda.is_available()


def has_bfloat16(*, gpu: bool = False) -> bool:
    """Whether this machine's processor multiplies bfloat16 itself, or its GPUs do.

    A processor that does not say is taken to: PyTorch knows better, and is asked before it runs anything.
    """
    if gpu:
        import torch

        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text() and not held_back()
    except OSError:
        return not held_back()


def held_back() -> bool:
    """Whether oneDNN, which multiplies for PyTorch, was told by its environment to do without such instructions."""
    told = next((os.environ[name] for name in _ISA if os.environ.get(name)), "")
    return told.upper() in _ISA_WITHOUT
