"""A network that was trained here, exported to ONNX, in onnxruntime: pixels to embeddings without PyTorch.

The graph describes images at one scale: normalisation, trunk, pooling, head, L2. What follows is a few numbers a photo
and is done in NumPy: mean over scales, whitening, the sum with the mirror image.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval.images.pixels import resize_linear
from retrieval.models.engines.runtime import open_session
from retrieval.models.settings import LEAST_SIDE, ModelConfig, usable_scales

_L2_EPS = 1e-6  # as pooling.l2n


class DoesNotExport(ValueError):
    """A network that will not run outside PyTorch, however often it is tried with these versions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A network outside PyTorch.

    Attributes: graph: the ONNX file, pixels (B, H, W, 3) -> embeddings (B, F) of one scale. power: of the mean over
        scales. projection (D, F) and mean (F,) float32: whitening, None without.
    """

    graph: bytes
    power: float = 1.0
    projection: np.ndarray | None = None
    mean: np.ndarray | None = None

    def tail(self) -> bytes:
        """All but the graph, as a NumPy .npz file."""
        file = io.BytesIO()
        whitening = {"projection": self.projection, "mean": self.mean}
        given: dict[str, Any] = {name: value for name, value in whitening.items() if value is not None}
        np.savez(file, power=np.float64(self.power), **given)
        return file.getvalue()

    @classmethod
    def of(cls, graph: bytes, tail: bytes) -> Exported:
        with np.load(io.BytesIO(tail), allow_pickle=False) as found:
            whitening = {name: found[name] for name in ("projection", "mean") if name in found}
            return cls(graph=graph, power=float(found["power"]), **whitening)


class ExportedNet:
    """An exported network, opened: the same function of pixels as the network it was exported from."""

    def __init__(self, exported: Exported, config: ModelConfig, *, threads: int | None = None) -> None:
        """Args: config: the network's own. threads: of a run."""
        self._session = open_session(exported.graph, threads=threads)
        given = self._session.get_inputs()[0]
        self._name, self._dtype = given.name, np.uint8 if given.type == "tensor(uint8)" else np.float32
        self._rest, self._config = exported, config

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 RGB -> (B, D) float32, unit norm; with `flip`, of the images and their mirrors."""
        found = self._embed(pixels)
        return l2n(found + self._embed(pixels[:, :, ::-1])) if self._config.flip else found

    def _embed(self, pixels: np.ndarray) -> np.ndarray:
        used = usable_scales(pixels.shape[1], pixels.shape[2], self._config.scales)
        scaled = [at_scale(pixels, scale) for scale in used]
        found = [self._run(np.ascontiguousarray(images, dtype=self._dtype)) for images in scaled]
        mean = mean_over_scales(found, self._rest.power) if len(found) > 1 else found[0]
        if self._rest.projection is None or self._rest.mean is None:
            return mean
        return whiten(mean, self._rest.projection, self._rest.mean)

    def _run(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self._session.run(None, {self._name: images})[0])


def at_scale(pixels: np.ndarray, scale: float) -> np.ndarray:
    """As `pooling.at_scale`, of images that are not normalised yet: (B, H, W, 3) -> (B, h, w, 3), float32 if resized.

    Normalising is the same affine map at each pixel, so it may come after.
    """
    if scale != 1:
        height, width = (max(1, int(side * scale)) for side in pixels.shape[1:3])
        pixels = np.stack([resize_linear(image, width, height) for image in pixels])
    height, width = pixels.shape[1:3]
    if min(height, width) >= LEAST_SIDE:
        return pixels
    room = [(0, 0), (0, max(0, LEAST_SIDE - height)), (0, max(0, LEAST_SIDE - width)), (0, 0)]
    return np.pad(pixels, room, mode="edge")


def mean_over_scales(embeddings: list[np.ndarray], power: float) -> np.ndarray:
    """As `pooling.mean_over_scales`: S of (B, D) float32 -> (B, D) float32, unit norm."""
    return l2n(np.mean(np.stack(embeddings) ** np.float32(power), axis=0) ** np.float32(1 / power))


def whiten(x: np.ndarray, projection: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """y = P (x - m), then L2. (B, F) -> (B, D)."""
    return l2n((x - mean) @ projection.T)


def l2n(x: np.ndarray) -> np.ndarray:
    """As `pooling.l2n`: (B, D) float32 -> (B, D), x / (||x|| + 1e-6)."""
    return x / (np.linalg.norm(x, axis=1, keepdims=True) + np.float32(_L2_EPS))
