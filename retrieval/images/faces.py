"""Which detector looks for faces, which of the faces found is the one, and how it is cut out.

Boxes are (x1, y1, x2, y2), floats, pixels of the image they were found in, x2 and y2 exclusive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2

from retrieval.images.detectors.face import Face, FaceDetector
from retrieval.images.detectors.haar import HaarDetector
from retrieval.images.detectors.yunet import YunetDetector
from retrieval.images.pixels import Pixels, as_pixels, resize
from retrieval.images.settings import Box, PrepareConfig


def make_detector(config: PrepareConfig, network: bytes | None = None) -> FaceDetector | None:
    """The detector that a preparation asks for, or None where no face is looked for. One per process or thread.

    Args: network: YuNet's file, needed for detector yunet. With detector auto it is used if it is given.

    Raises: ValueError if it is needed and not given, or is no such network.
    """
    if not config.looks:
        return None
    config = config.resolved(network is not None)
    if config.detector == "yunet":
        assert network is not None, "resolved() refuses yunet without its network"
        return YunetDetector(config, network)
    return HaarDetector(config)


def best_first(faces: Sequence[Face], width: int, height: int) -> list[Face]:
    """Faces, the one first that a portrait is of: the greatest area * (1 - d)^2, d = distance of its centre from the
    image's centre over half the image's diagonal. A face in the middle beats one of up to 4 times its area half-way to
    a corner. Ties go to the box nearer the top left."""

    def weight(box: Box) -> float:
        away = math.hypot((box[0] + box[2]) / 2 - width / 2, (box[1] + box[3]) / 2 - height / 2)
        return (box[2] - box[0]) * (box[3] - box[1]) * max(0.0, 1 - away / (math.hypot(width, height) / 2)) ** 2

    return sorted(faces, key=lambda face: (-weight(face.box), face.box[1], face.box[0]))


def largest_first(faces: Sequence[Face]) -> list[Face]:
    """Faces by the area of their boxes; ties go to the box nearer the top left."""

    def area(box: Box) -> float:
        return (box[2] - box[0]) * (box[3] - box[1])

    return sorted(faces, key=lambda face: (-area(face.box), face.box[1], face.box[0]))


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
