"""Photos of a few places in memory, of several shapes, and the tuples that their labels make; models by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.artifacts.tuples import TupleSet, as_set
from retrieval.geometry import tuples
from retrieval.geometry.sparse_model import SparseModel
from retrieval.images.pixels import encode_jpeg

SHAPES = ((96, 72), (72, 96), (96, 64), (96, 96))


class Photos:
    """Photos in memory, with the surface of a LocalCollection."""

    def __init__(self, num_clusters: int = 8, each: int = 4) -> None:
        rng = np.random.default_rng(0)
        self.image_ids = np.array([f"{c:02d}/{n}" for c in range(num_clusters) for n in range(each)], dtype=object)
        self._jpegs = []
        for cluster in range(num_clusters):
            pattern = rng.integers(0, 255, size=(8, 8, 3))
            for number in range(each):
                height, width = SHAPES[(cluster + number) % len(SHAPES)]
                picture = np.kron(pattern, np.ones((12, 12, 1)))[:height, :width] + rng.normal(
                    0, 25, (height, width, 3)
                )
                self._jpegs.append(encode_jpeg(np.clip(picture, 0, 255).astype(np.uint8)))

    def __len__(self) -> int:
        return len(self.image_ids)

    def jpegs(self, rows: Sequence[int] | np.ndarray) -> list[bytes]:
        return [self._jpegs[int(row)] for row in rows]


def known(photos: Photos, val_fraction: float = 0.25) -> TupleSet:
    ids = list(photos.image_ids)
    tables = tuples.labelled_tables(ids, [name[:2] for name in ids])
    return as_set(*tuples.divide(*tables, val_fraction=val_fraction))


def scene(names: list[str], seen: list[tuple[int, int, float]]) -> SparseModel:
    """A model of what each image sees. Args: seen: (image, point, scale)."""
    num = max(point for _, point, _ in seen) + 1
    images, points, scales = zip(*seen, strict=True)
    return SparseModel(
        image_ids=names,
        centres=np.arange(3.0 * len(names)).reshape(-1, 3),
        directions=np.tile([0.0, 0, 1], (len(names), 1)),
        points=np.arange(3.0 * num).reshape(-1, 3),
        colours=np.full((num, 3), 7, np.uint8),
        obs_image=np.array(images),
        obs_point=np.array(points),
        obs_scale=np.array(scales, dtype=np.float64),
    )
