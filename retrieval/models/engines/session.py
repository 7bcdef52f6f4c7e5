"""A frozen network's file, checked by what it says of itself and opened in onnxruntime. Without PyTorch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.artifacts.folder import Folder
from retrieval.models.engines import graph, runtime
from retrieval.models.engines.exported import l2n, whiten
from retrieval.models.engines.manifest import NetworkManifest
from retrieval.models.settings import Precision
from retrieval.models.spec import NETWORK_FILE, WEIGHTS_FILE, ModelSpec, check_files

if TYPE_CHECKING:
    import onnxruntime

FORMAT = "onnxruntime"
"""What manifests call the number format of a frozen network: its file's."""
_TYPES = ("float32", "uint8")


def check_precision(network: NetworkManifest, precision: Precision) -> None:
    """Raises: ValueError for bf16."""
    if precision == "bf16":
        raise ValueError(
            f"precision bf16 was asked for, and {network.name} runs in the number format of its file. Use auto."
        )


class FrozenFile:
    """The file of a frozen network. `graph` is what it says of itself, `output` the name of the output taken.

    The session is opened on first use, and again in each process that it is sent to.
    """

    def __init__(self, network: NetworkManifest, content: bytes) -> None:
        """Raises: ValueError if the file is not what the manifest says."""
        self.network, self.content = network, content
        _check_sha(network, content)
        runtime.check(content, name_of(network))
        self.graph = graph.read_graph(content)
        self.output = _check_shapes(network, self.graph)
        self._session: onnxruntime.InferenceSession | None = None
        self._threads: int | None = None
        self._gpu = False

    def open(self, threads: int | None = None, *, gpu: bool = False) -> onnxruntime.InferenceSession:
        """Open the session, with so many threads a run, on a GPU if that is asked for and there is one.

        Raises: ValueError if onnxruntime refuses the file.
        """
        self._threads, self._gpu, self._session = threads, gpu, None
        return self._opened()

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float32 RGB: (x/255 - mean) / std, or 0 to 255 as they are."""
        x = pixels.astype(np.float32)
        if self.network.mean:
            mean, std = (np.array(values, np.float32) for values in (self.network.mean, self.network.std))
            x = (x / 255 - mean) / std
        return x.transpose(0, 3, 1, 2)

    def run(self, x: np.ndarray) -> np.ndarray:
        """(B, 3, H, W) float32 RGB, as `normalise` gives it -> (B, dim) float32, as the network gives it.

        Raises: ValueError for an output that is no number.
        """
        given = self.graph.inputs[0]
        if self.network.channels == "BGR":
            x = x[:, ::-1]
        if self.network.layout == "NHWC":
            x = x.transpose(0, 2, 3, 1)
        x = np.ascontiguousarray(x, dtype=given.dtype)
        session, step = self._opened(), given.shape[0] or len(x)
        parts = [x[start : start + step] for start in range(0, len(x), step)]
        try:
            out = np.concatenate([_run_padded(session, self.output, given.name, part, step) for part in parts])
        except Exception as error:  # onnxruntime's errors share no class but this
            raise ValueError(f"{name_of(self.network)} failed on input {x.shape}: {str(error)[:200]}") from error
        out = out.reshape(len(x), -1).astype(np.float32)
        if not np.isfinite(out).all():
            raise ValueError(
                f"{name_of(self.network)} gives values that are no numbers (NaN or infinite). Check mean, std and "
                f"channels of its manifest, or export it again in float32."
            )
        return out

    def _opened(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            # Unpacked when it is opened: else onnxruntime unpacks all weights for each photo.
            entries = {"session.disable_quant_qdq": "1"} if self.graph.weights_are_packed else {}
            self._session = runtime.open_session(
                self.graph.content, threads=self._threads, gpu=self._gpu, entries=entries
            )
        return self._session

    def __getstate__(self) -> dict[str, Any]:
        """Without the session, which cannot be copied or sent."""
        return {**self.__dict__, "_session": None}


class FrozenBundle:
    """A sealed bundle of a frozen network, opened. `device` is cuda where onnxruntime runs it on a GPU, else cpu."""

    def __init__(
        self, folder: Folder | Path | str, spec: ModelSpec, *, threads: int | None = None, gpu: bool = False
    ) -> None:
        """Args: gpu: run on one, where onnxruntime finds it.

        Raises: ValueError for files that are not those that were sealed, or a network that does not run."""
        import safetensors.numpy

        folder = Folder.of(folder)
        manifest = check_files(folder)
        assert spec.network is not None
        self.spec, self.fingerprint = spec, manifest.fingerprint
        self.dim = spec.whitening_dim or spec.network.dim
        self._file = FrozenFile(spec.network, folder.read_bytes(NETWORK_FILE))
        self._rest = safetensors.numpy.load(folder.read_bytes(WEIGHTS_FILE))
        providers = self._file.open(threads, gpu=gpu).get_providers()
        self.device = "cuda" if "CUDAExecutionProvider" in providers else "cpu"

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 RGB -> (B, D) float32, unit norm; with `flip`, of the images and their mirrors."""
        x = self._file.normalise(pixels)
        found = self._whitened(x)
        return l2n(found + self._whitened(x[..., ::-1])) if self.spec.config.flip else found

    def _whitened(self, x: np.ndarray) -> np.ndarray:
        found = l2n(self._file.run(x))
        if self.spec.whitening == "none":
            return found
        return whiten(found, self._rest["whitening_projection"], self._rest["whitening_mean"])


def _check_sha(network: NetworkManifest, content: bytes) -> None:
    got = hashlib.sha256(content).hexdigest()
    if network.sha256 != got:
        raise ValueError(
            f"{name_of(network)} is another file than its manifest names: sha256 {got[:16]}..., expected "
            f"{network.sha256[:16]}.... Copy it again, or write a manifest of this one."
        )


def _check_shapes(network: NetworkManifest, told: graph.Graph) -> str:
    """What the manifest says against what the file says. Returns: the name of the output taken."""
    called = name_of(network)
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
            f"{called} takes {graph.shown(given)}, and its manifest says {network.layout}: expected 4 dimensions, at "
            f"place {axes[0] + 1} of 3 channels. Correct layout."
        )
    sides = (given.shape[axes[1]], given.shape[axes[2]])
    if any(side not in (network.size, graph.ANY) for side in sides):
        size = network.size or "any"
        raise ValueError(
            f"{called} takes {sides[0]} x {sides[1]} pixels, and its manifest says size {size}. Correct it."
        )
    return graph.output_of(told.outputs, network.output, network.dim, called)


def _run_padded(session: Any, output: str, name: str, part: np.ndarray, step: int) -> np.ndarray:
    """One run of exactly `step` photos, the last repeated where there are fewer. Returns: those of `part`."""
    full = part if len(part) == step else np.concatenate([part, np.repeat(part[-1:], step - len(part), axis=0)])
    return session.run([output], {name: full})[0].reshape(step, -1)[: len(part)]


def name_of(network: NetworkManifest) -> str:
    """How messages name a network."""
    return f"The network {network.name}"
