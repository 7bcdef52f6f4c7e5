"""Outputs of the frozen part of the trunk, kept on the node's disk: computed once, read every epoch; and what follows.

Views of an image: the plain image; its mirror, if the model embeds that too; then augmented ones.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from retrieval.artifacts.progress import Progress, silent
from retrieval.artifacts.storage.failures import kind_of, outage
from retrieval.models import backbones, folding
from retrieval.models.network import EmbeddingNet

Pixels = Callable[[Sequence[int], int], Tensor]
"""(rows, view) -> (B, S, S, 3) uint8."""


class FeatureCache:
    """(N, V, C, h, w) float16 in one memory-mapped file that all processes of a node share.

    All of it is given its place on the disk before it is mapped: on a full disk a write to a map ends the process.
    float16 keeps three more bits than the bfloat16 the maps are computed in; values are clamped to its range.
    """

    def __init__(self, path: Path, num_images: int, num_views: int, map_shape: Sequence[int]) -> None:
        """Raises: Outage if the disk has no room for all of it."""
        shape = (num_images, num_views, *map_shape)
        path.parent.mkdir(parents=True, exist_ok=True)
        num_bytes = int(np.prod(shape)) * 2
        with path.open("ab") as file:  # created by whoever comes first; never cut short under another's map
            try:
                os.posix_fallocate(file.fileno(), 0, num_bytes)
            except OSError as error:
                if kind_of(error) != "full":
                    raise
                path.unlink(missing_ok=True)  # a part of it would only keep others from their room
                what = f"keeping {num_bytes / 1e9:.3f} GB of features at {path} (--cache names another place)"
                raise outage(error, "full", what) from error
        self._maps = np.memmap(path, dtype=np.float16, mode="r+", shape=shape)
        self.num_views = num_views

    def fill(
        self,
        rows: np.ndarray,
        pixels: Pixels,
        frozen: Callable[[Tensor], Tensor],
        batch_size: int = 64,
        progress: Progress = silent,
    ) -> None:
        """Compute all views of `rows`. `frozen`: (B, S, S, 3) uint8 -> (B, C, h, w), the frozen part's output."""
        total = self.num_views * len(rows)
        for view in range(self.num_views):
            for start in range(0, len(rows), batch_size):
                chunk = rows[start : start + batch_size]
                maps = frozen(pixels(chunk.tolist(), view)).float().clamp(-65504, 65504)
                self._maps[chunk, view] = maps.cpu().numpy().astype(np.float16)
                progress("fill features", view * len(rows) + start + len(chunk), total)

    def read(self, rows: Sequence[int] | np.ndarray, views: Sequence[int] | np.ndarray | int) -> Tensor:
        """Maps of rows[i] under views[i]: (B, C, h, w) float32 on the CPU, channels_last."""
        picked = torch.from_numpy(self._maps[np.asarray(rows), np.asarray(views)])
        return picked.float().contiguous(memory_format=torch.channels_last)


class Tail(nn.Module):
    """What trains: maps of the frozen part -> embeddings."""

    def __init__(self, tail: nn.Sequential, net: EmbeddingNet) -> None:
        super().__init__()
        self.tail, self.pool, self.head = tail, net.pool, net.head
        self._from_maps = net.from_maps  # bound method, no parameters of its own
        self._folds = backbones.is_convolutional(net.spec.config.backbone)
        # The same parameters, run with less memory moved: in a list, so that a checkpoint holds them once.
        self._runs = [folding.rewrite(tail) if self._folds else tail]

    def forward(self, maps: Tensor) -> Tensor:
        return self._from_maps(self._runs[0](maps))

    def as_it_is(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """The same for inference, in `dtype`, until the parameters change."""
        tail = (folding.fold(self.tail) if self._folds else copy.deepcopy(self.tail)).to(dtype)
        return lambda maps: self._from_maps(tail(maps.to(dtype)))
