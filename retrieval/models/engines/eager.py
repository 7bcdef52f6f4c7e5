"""A network in PyTorch, for inference: BatchNorm folded into convolutions, channels_last, bfloat16 without harm."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from retrieval.models.engines.frozen import FrozenNet
from retrieval.models.engines.number_format import inference_trunk
from retrieval.models.engines.session import FORMAT, check_precision
from retrieval.models.network import EmbeddingNet, Network
from retrieval.models.pooling import l2n
from retrieval.models.settings import Precision


def pick_device(device: str = "auto") -> torch.device:
    """ "auto" is the GPU if there is one, else the CPU. Raises: ValueError for a device that is not here."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"Device '{device}' was asked for, but PyTorch finds no GPU here. Use --device auto or cpu.")
    return torch.device(device)


class EagerNet:
    """A network, opened: `format` is what its trunk runs in. A frozen network's own session is opened here as well."""

    def __init__(
        self,
        net: Network,
        device: torch.device,
        precision: Precision,
        *,
        threads: int | None = None,
        assume_bfloat16: bool = False,
    ) -> None:
        """Args:
        net: left as it is.
        threads: PyTorch's, of this process; None leaves PyTorch's own choice.
        assume_bfloat16: as of `engines.choice.open_network`.
        """
        if threads:
            torch.set_num_threads(threads)
        self._device = device
        self._net: Network = copy.deepcopy(net).to(device).eval()
        self.format = "float32"
        if isinstance(self._net, FrozenNet):
            check_precision(self._net.network, precision)
            self._net.file.open(threads)
            self.format = FORMAT
        elif isinstance(self._net, EmbeddingNet):
            trunk, self.format = inference_trunk(self._net, precision, assume_bfloat16=assume_bfloat16)
            self._net.trunk = trunk  # type: ignore[assignment]

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 RGB -> (B, D) float32, unit norm; with `flip`, of the images and their mirrors."""
        return self.forward(torch.from_numpy(pixels)).float().cpu().numpy()

    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> Tensor:
        """As `embed`, of a tensor on any device; what it gives is on the network's."""
        x = self._net.normalise(pixels.to(self._device, non_blocking=True))
        if not self._net.spec.config.flip:
            return self._net(x)
        return l2n(self._net(x) + self._net(x.flip(3).contiguous(memory_format=torch.channels_last)))
