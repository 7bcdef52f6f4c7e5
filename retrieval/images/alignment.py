"""Aligned faces: turned, scaled and shifted so that eyes, nose and mouth lie where a network expects them."""

from __future__ import annotations

import math

import cv2
import numpy as np

from retrieval.images.detectors.face import Points
from retrieval.images.pixels import Pixels, as_pixels
from retrieval.images.settings import Box

TEMPLATE_SIDE = 112

TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""(5, 2) x, y of both eyes, the nose and the mouth's corners in a square of 112 pixels, (0, 0) the middle of its first
pixel: where ArcFace (Deng et al., arXiv:1801.07698) and SFace (Zhong et al., arXiv:2205.12010) were trained to see
them; OpenCV's `FaceRecognizerSF::alignCrop` has the same numbers."""


def template_at(size: int, margin: float) -> np.ndarray:
    """(5, 2) float64: the template in a square of `size` pixels with `margin` of its side around it on each side."""
    return ((TEMPLATE + 0.5) / TEMPLATE_SIDE + margin) / (1 + 2 * margin) * size - 0.5


def similarity(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The turn, scale and shift that bring `points` nearest to `target` in the sum of squares, without mirroring.

    w_i ~ a z_i + b over complex z = x + iy, so that a = sum conj(z_i - mean z) (w_i - mean w) / sum |z_i - mean z|^2.
    The same minimum as Umeyama's (PAMI 1991), which may mirror where points are that wrong.

    Args: points, target: (N, 2) float, N >= 2.
    Returns: (2, 3) float64 M with target ~ M[:, :2] @ point + M[:, 2].
    Raises: ValueError if all points are one.
    """
    z, w = (np.asarray(p, np.float64) @ np.array([1, 1j]) for p in (points, target))
    from_, to = z.mean(), w.mean()
    spread = float((abs(z - from_) ** 2).sum())
    if not 0 < spread < math.inf:
        raise ValueError(f"Points that are all one, or no numbers, cannot be aligned: {points!r}.")
    a = (np.conj(z - from_) @ (w - to)) / spread
    b = to - a * from_
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def scale_of(points: Points, size: int, margin: float) -> float:
    """Pixels of an aligned square of `size` for one of the image that `points` lie in. Raises: as `similarity`."""
    return float(np.hypot(*similarity(np.array(points), template_at(size, margin))[:, 0]))


def align(image: Pixels, points: Points, size: int, margin: float = 0.0) -> tuple[Pixels, Box]:
    """Cut a face out so that its points lie as the template's.

    Where the face is more than twice as large as it will be, the image is shrunk by areas first, as bilinear sampling
    would take one pixel of many. What lies outside the image is black, as in the photos that such networks saw.

    Args: image: (H, W, 3) uint8. points: in its pixels. margin: room around the template, as a part of its side.
    Returns: (size, size, 3) uint8, and the upright box of `image` around what was cut.
    Raises: ValueError if the points are all one.
    """
    target = template_at(size, margin)
    matrix = similarity(np.array(points), target)
    box = _box_of(matrix, size)
    if (scale := float(np.hypot(*matrix[:, 0]))) < 0.5:
        image, matrix = _shrunk(image, np.array(points), box, 2 * scale, target)
    return as_pixels(cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)), box


def _box_of(matrix: np.ndarray, size: int) -> Box:
    corners = np.array([[x, y] for x in (-0.5, size - 0.5) for y in (-0.5, size - 0.5)])
    there = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T + 0.5
    (x1, y1), (x2, y2) = there.min(axis=0), there.max(axis=0)
    return (float(x1), float(y1), float(x2), float(y2))


def _shrunk(
    image: Pixels, points: np.ndarray, box: Box, factor: float, target: np.ndarray
) -> tuple[Pixels, np.ndarray]:
    """The part of the image in `box`, shrunk by about `factor`, and the similarity from it to `target`."""
    height, width = image.shape[:2]
    x1, y1 = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    x2, y2 = min(width, math.ceil(box[2])), min(height, math.ceil(box[3]))
    part = image[y1:y2, x1:x2]
    if part.size == 0:  # the points lie far outside: all of it is black, whatever its size
        return image, similarity(points, target)
    wide, high = max(1, round(part.shape[1] * factor)), max(1, round(part.shape[0] * factor))
    small = as_pixels(cv2.resize(part, (wide, high), interpolation=cv2.INTER_AREA))
    moved = (points - (x1, y1) + 0.5) * (wide / part.shape[1], high / part.shape[0]) - 0.5
    return small, similarity(moved, target)
