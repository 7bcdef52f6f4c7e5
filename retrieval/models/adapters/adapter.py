"""An adapter: a small map of finished embeddings, the last thing that a bundle does to them.

It comes after the network, its whitening and the sum with the mirror image, in NumPy: the same map whatever engine runs
the network, and for vectors that were embedded long ago. It lies in a file of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval.models.engines.exported import l2n
from retrieval.models.settings import AdapterKind
from retrieval.models.spec import ADAPTER_FILE

if TYPE_CHECKING:
    from retrieval.artifacts.folder import Folder
    from retrieval.artifacts.manifest import Manifest

_LINEAR, _RESIDUAL = ("bias", "weight"), ("down", "down_bias", "up", "up_bias")
_NAMES: dict[str, tuple[str, ...]] = {"whitening": _LINEAR, "linear": _LINEAR, "residual": _RESIDUAL}


@dataclass(frozen=True, slots=True)
class Adapter:
    """whitening, linear: y = W x + b. residual: y = x + V max(U x + u, 0) + v. Then L2.

    Attributes: kind: how it was made. tensors, float32: weight W (D', D) and bias b (D'); or up U (H, D), up_bias u
        (H), down V (D, H), down_bias v (D).
    """

    kind: AdapterKind
    tensors: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        names = _NAMES.get(self.kind, ())
        shapes = {name: value.shape for name, value in self.tensors.items()}
        if not names or sorted(shapes) != list(names) or not self._fit(shapes):
            raise ValueError(f"These are not the numbers of a '{self.kind}' adapter: {shapes}.")
        if any(value.dtype != np.float32 or not np.isfinite(value).all() for value in self.tensors.values()):
            raise ValueError(f"The '{self.kind}' adapter holds values that are no numbers of float32.")

    def _fit(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        if "weight" in shapes:
            return len(shapes["weight"]) == 2 and shapes["bias"] == shapes["weight"][:1]
        up = shapes["up"]
        fit = {"up_bias": up[:1], "down": up[::-1], "down_bias": up[1:]}
        return len(up) == 2 and all(shapes[name] == shape for name, shape in fit.items())

    @property
    def takes(self) -> int:
        """D, the length of the embeddings that it takes."""
        return self.tensors["up" if self.kind == "residual" else "weight"].shape[1]

    @property
    def dim(self) -> int:
        """The length of those that it gives."""
        return self.takes if self.kind == "residual" else len(self.tensors["weight"])

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(B, D) float32, unit norm -> (B, dim) float32, unit norm."""
        tensors = self.tensors
        if self.kind == "residual":
            hidden = np.maximum(x @ tensors["up"].T + tensors["up_bias"], 0)
            return l2n(x + hidden @ tensors["down"].T + tensors["down_bias"])
        return l2n(x @ tensors["weight"].T + tensors["bias"])

    def content(self) -> bytes:
        """As a .safetensors file."""
        import safetensors.numpy

        return safetensors.numpy.save({name: np.ascontiguousarray(value) for name, value in self.tensors.items()})


def read_adapter(folder: Folder, kind: AdapterKind, manifest: Manifest) -> Adapter | None:
    """The adapter of a sealed bundle, whose spec says of what kind it is; None where that is none.

    Raises: ValueError for a file that is not the one that was sealed, or no adapter of this kind.
    """
    if kind == "none":
        return None
    import safetensors.numpy

    content = folder.read_bytes(ADAPTER_FILE)
    if hashlib.sha256(content).hexdigest() != manifest.files.get(ADAPTER_FILE):
        raise ValueError(
            f"{folder}/{ADAPTER_FILE} is not the file that was sealed (its hash differs). Copy the bundle again."
        )
    return Adapter(kind, safetensors.numpy.load(content))
