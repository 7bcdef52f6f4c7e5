"""Faces by OpenCV's Haar cascades (Viola and Jones, 2001): boxes only, nothing to download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2

from retrieval.images.boxes import overlap
from retrieval.images.detectors.face import Face
from retrieval.images.pixels import Pixels, as_pixels, resize
from retrieval.images.settings import CASCADE_FILES, Box, DetectorConfig


class HaarDetector:
    """A loaded cascade."""

    def __init__(self, config: DetectorConfig | None = None) -> None:
        self.config = config or DetectorConfig()
        # The folder of cascades ships inside the OpenCV wheel, next to its modules.
        path = Path(cv2.__file__).parent / "data" / CASCADE_FILES[self.config.cascade]
        self._cascade = cv2.CascadeClassifier(str(path))
        if self._cascade.empty():
            raise ValueError(f"No Haar cascade at {path}: OpenCV 5 removed them, install opencv-python-headless<5.")

    def detect(self, image: Pixels, *, every: bool = False) -> list[Face]:
        """See `FaceDetector`. Overlapping detections are merged."""
        grey = as_pixels(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
        longest, config = max(grey.shape), self.config
        last = config.all_side if every else config.max_detect_side
        side, found = config.detect_side, list[Box]()
        while True:
            found += self._search(grey, min(1.0, side / longest))
            if (found and not every) or side >= min(longest, last):
                return [Face(box) for box in merge_boxes(found)]
            side = min(2 * side, last)

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


def _mean(boxes: list[Box]) -> Box:
    n = len(boxes)
    return (
        sum(b[0] for b in boxes) / n,
        sum(b[1] for b in boxes) / n,
        sum(b[2] for b in boxes) / n,
        sum(b[3] for b in boxes) / n,
    )
