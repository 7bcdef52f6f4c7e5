"""Crops as `prepare` stores them, and how far one is from the pixels it should have."""

from __future__ import annotations

import numpy as np

from retrieval.images.detectors.haar import HaarDetector
from retrieval.images.pixels import decode
from retrieval.images.preparation import Prepared
from retrieval.images.settings import PrepareConfig

HAAR = PrepareConfig(detector="haar")
DETECTOR = HaarDetector(HAAR)


def pixels_of(done: Prepared) -> np.ndarray:
    """(height, width, 3) int RGB: differences of them may be negative."""
    return decode(done.jpeg, min_side=1)[0].astype(int)


def error(done: Prepared, wanted: np.ndarray) -> float:
    """Mean absolute difference, in levels of 0 to 255. wanted: (height, width, 3)."""
    return float(np.abs(pixels_of(done) - wanted).mean())


def rough(height: int, width: int) -> np.ndarray:
    """Grey blocks of 4 x 4 pixels: a decode at half the size keeps them, one at an eighth does not."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 1), dtype=np.uint8)
    return coarse.repeat(4, axis=0).repeat(4, axis=1).repeat(3, axis=2)
