"""ALIKED as an extractor: points and descriptors that a network learned, from a file of its weights that is at hand.

On one thread of a CPU, one photo at a time in its own shape, descriptors rounded to half precision at once: what is
taken fresh and what lay on a disk are the same numbers. Nothing is downloaded here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from retrieval.geometry.extractors.aliked_network import AlikedN16
from retrieval.images.pixels import Pixels


class Aliked:
    """Pixels and how many -> points and descriptors."""

    def __init__(self, weights: bytes) -> None:
        """Args: weights: as `packed` gives them."""
        self._net = AlikedN16().eval().requires_grad_(False)
        self._net.load_state_dict(safetensors.torch.load(weights))
        self._net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 1.6 times as fast

    @torch.inference_mode()
    def __call__(self, pixels: Pixels, max_features: int) -> tuple[np.ndarray, np.ndarray]:
        """x, y, 1 and 0 (N, 4) float32, for it tells no size and no angle, the best first; and (N, 128) float16 of
        norm 1."""
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 255
        with _one_thread():
            points, descriptors, _ = self._net(image, max_features)
        keypoints = np.zeros((len(points), 4), np.float32)
        # COLMAP's zero is a pixel's corner, the network's its middle.
        keypoints[:, :2] = points.numpy() + np.float32(0.5)
        keypoints[:, 2] = 1
        return keypoints, descriptors.half().numpy()


@contextmanager
def _one_thread() -> Iterator[None]:
    """With two threads sums are taken in another order, and a few points are others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def packed(state: Mapping[str, Tensor], where: str) -> bytes:
    """Weights of ALIKED-n16 as safetensors, in float32: the same bytes for the same numbers.

    Args: state: tensors by name. where: the file that they are from, for what is said.

    Raises: ValueError if they are of another network.
    """
    net = AlikedN16()
    own = {name: tensor.shape for name, tensor in net.state_dict().items()}
    if odd := sorted(name for name in {*own, *state} if name not in state or state[name].shape != own.get(name)):
        raise ValueError(
            f"'{where}' does not hold ALIKED-n16: {odd[0]} is missing, of another shape, or nothing that it has, and "
            f"{len(odd) - 1} more. Give the file that its authors publish as aliked-n16.pth."
        )
    net.load_state_dict(state)
    return safetensors.torch.save(net.state_dict())


def digest_of(weights: bytes) -> str:
    """What names the weights: sha256 hex of their bytes as `packed` gives them."""
    return hashlib.sha256(weights).hexdigest()
