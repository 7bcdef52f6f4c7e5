"""What goes through a network together: how many images, of which shape; and the next ones decoded meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")

Made = TypeVar("Made")

_MOST_DECODERS = 16  # for one GPU: an H200 takes 13,000 photos of 218 px a second with ResNet-50, these give 10,000+
_FEW = 8  # photos that one of them decodes at a time


class Decoders:
    """Threads that decode for one network.

    `ahead` is a single one, which makes the next batch ready while the network runs on this one. A GPU takes photos
    faster than that and leaves the other cores idle, so these share each batch; on a CPU they are the network's.
    """

    def __init__(self, device: object) -> None:
        """Args: device: the network's, a torch.device or its name."""
        self.ahead = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")
        threads = min(_MOST_DECODERS, max(2, len(os.sched_getaffinity(0)))) if str(device).startswith("cuda") else 1
        self._others = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="decode") if threads > 1 else None

    def stack(self, jpegs: Sequence[bytes], decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
        """(B, H, W, 3) uint8: decode(jpeg) of each of B > 0 files, which come out in one shape."""
        if self._others is None or len(jpegs) < _FEW:
            return np.stack([decode(jpeg) for jpeg in jpegs])
        first = decode(jpegs[0])
        pixels = np.empty((len(jpegs), *first.shape), dtype=first.dtype)
        pixels[0] = first

        def fill(start: int) -> None:
            for place in range(start, min(start + _FEW, len(jpegs))):
                pixels[place] = decode(jpegs[place])

        list(self._others.map(fill, range(1, len(jpegs), _FEW)))
        return pixels


def prefetch(executor: Executor, make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[tuple[Item, Made]]:
    """(item, make(item)) of each in turn; one more than is used lies ready."""
    waiting: tuple[Item, Future[Made]] | None = None
    for item in items:
        coming = (item, executor.submit(make, item))
        if waiting is not None:
            yield waiting[0], waiting[1].result()
        waiting = coming
    if waiting is not None:
        yield waiting[0], waiting[1].result()


def images_at_once(most: int, pixels: int, device: object, *, rounded: bool) -> int:
    """How many images of `pixels` (height * width) go through a network together, `most` at most and one at least.

    On a CPU as many as leave the largest maps in its cache: 200,000 pixels in float32, 400,000 in bfloat16 (`rounded`).
    MobileNet-V2 at 160 px takes 8 images at once at 1.5 times the rate of 32, and at 2.7 times that of 128.
    """
    if str(device) != "cpu":
        return max(1, most)
    return max(1, min(most, (8 if rounded else 4) * 224 * 224 // pixels))


def by_shape(shapes: np.ndarray, at_once: Callable[[int], int]) -> list[np.ndarray]:
    """Rows in batches that can be stacked, since a batch holds one shape: nothing is padded.

    Args:
        shapes: (N, 2) int, width and height of each image.
        at_once: how many images of so many pixels (width * height) go together; less than one counts as one.

    Returns: (B,) int64 arrays that hold each row once, rising within a shape; narrow shapes come first.
    """
    batches = []
    for shape in np.unique(shapes, axis=0):
        rows = np.flatnonzero((shapes == shape).all(axis=1))
        step = max(1, at_once(int(shape.prod())))
        batches += [rows[start : start + step] for start in range(0, len(rows), step)]
    return batches
