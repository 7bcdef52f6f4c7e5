"""Boxes in an image: how far two are the same, squares around them, and what is in them.

Boxes are (x1, y1, x2, y2), floats, pixels of the image they were found in, x2 and y2 exclusive.
"""

from __future__ import annotations

import math

import cv2

from retrieval.images.pixels import Pixels, as_pixels, resize
from retrieval.images.settings import Box


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def expand_box(box: Box, margin: float) -> Box:
    """A square around the box's centre: its longer side, plus `margin` of it on each side. May reach outside."""
    half = max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * margin) / 2
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return (x - half, y - half, x + half, y + half)


def crop(image: Pixels, box: Box, size: int) -> Pixels:
    """Cut a box out, rounded to whole pixels, and resize it; where it reaches outside, the border is repeated.

    Returns: (size, size, 3) uint8 RGB.
    Raises: ValueError if the box does not meet the image.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (math.floor(edge + 0.5) for edge in box)
    if x2 <= x1 or y2 <= y1 or x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        raise ValueError(f"The box {box} does not meet the image of {width} x {height} pixels.")
    inside = image[max(y1, 0) : min(y2, height), max(x1, 0) : min(x2, width)]
    outside = (max(-y1, 0), max(y2 - height, 0), max(-x1, 0), max(x2 - width, 0))
    if any(outside):
        inside = as_pixels(cv2.copyMakeBorder(inside, *outside, cv2.BORDER_REPLICATE))
    return resize(inside, size, size)
