"""Find the face in a photograph and cut it out: Haar cascades, merged boxes, one best face, a square crop.

Boxes are (x1, y1, x2, y2), floats, pixels of the image they were found in, x2 and y2 exclusive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2

from retrieval.images.pixels import Pixels, as_pixels, resize
from retrieval.images.settings import CASCADE_FILES, Box, DetectorConfig


class FaceDetector:
    """A loaded cascade. One per process or thread: OpenCV's classifier keeps state while it searches."""

    def __init__(self, config: DetectorConfig | None = None) -> None:
        self.config = config or DetectorConfig()
        # The folder of cascades ships inside the OpenCV wheel, next to its modules.
        path = Path(cv2.__file__).parent / "data" / CASCADE_FILES[self.config.cascade]
        self._cascade = cv2.CascadeClassifier(str(path))
        if self._cascade.empty():
            raise ValueError(f"No Haar cascade at {path}: OpenCV 5 removed them, install opencv-python-headless<5.")

    def detect(self, image: Pixels) -> list[Box]:
        """Faces in an upright RGB image (H, W, 3) uint8; overlapping detections are merged. May be empty."""
        grey = as_pixels(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
        longest = max(grey.shape)
        side = self.config.detect_side
        while True:
            boxes = self._search(grey, min(1.0, side / longest))
            if boxes or side >= min(longest, self.config.max_detect_side):
                return merge_boxes(boxes)
            side = min(2 * side, self.config.max_detect_side)

    def _search(self, grey: Pixels, scale: float) -> list[Box]:
        height, width = grey.shape
        small = resize(grey, max(1, round(width * scale)), max(1, round(height * scale)))
        found = self._cascade.detectMultiScale(
            small,
            scaleFactor=self.config.scale_factor,
            minNeighbors=self.config.min_neighbors,
            minSize=(self.config.min_face, self.config.min_face),
        )
        across, down = width / small.shape[1], height / small.shape[0]
        rows = [[float(value) for value in row] for row in found]
        return [(x * across, y * down, (x + w) * across, (y + h) * down) for x, y, w, h in rows]


def merge_boxes(boxes: Sequence[Box], min_overlap: float = 0.3) -> list[Box]:
    """Average each group of boxes that overlap, directly or through others, by at least `min_overlap` (IoU)."""
    groups: list[list[Box]] = []
    for box in boxes:
        touching = [group for group in groups if any(overlap(box, other) >= min_overlap for other in group)]
        merged = [box, *(other for group in touching for other in group)]
        groups = [group for group in groups if group not in touching] + [merged]
    return [_mean(group) for group in groups]


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def best_face(boxes: Sequence[Box], width: int, height: int) -> Box:
    """The face a portrait is of: the greatest area * (1 - d)^2, d = distance of its centre from the image's centre
    over half the image's diagonal. A face in the middle beats one of up to 4 times its area half-way to a corner.
    Ties go to the box nearer the top left.

    Raises: ValueError if there is no box.
    """
    if not boxes:
        raise ValueError("best_face got no box; check `detect` found one.")

    def weight(box: Box) -> float:
        away = math.hypot((box[0] + box[2]) / 2 - width / 2, (box[1] + box[3]) / 2 - height / 2)
        return (box[2] - box[0]) * (box[3] - box[1]) * max(0.0, 1 - away / (math.hypot(width, height) / 2)) ** 2

    return min(boxes, key=lambda box: (-weight(box), box[1], box[0]))


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


def _mean(boxes: list[Box]) -> Box:
    n = len(boxes)
    return (
        sum(b[0] for b in boxes) / n,
        sum(b[1] for b in boxes) / n,
        sum(b[2] for b in boxes) / n,
        sum(b[3] for b in boxes) / n,
    )
