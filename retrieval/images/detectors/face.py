"""A face that was found, each once, and the sizes at which a photo is searched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from retrieval.images.boxes import overlap
from retrieval.images.pixels import Pixels
from retrieval.images.settings import Box, DetectorConfig

Points = tuple[tuple[float, float], ...]
"""Five (x, y): the eye at the left of the image, the one at the right, the nose's tip, the mouth's corners, left and
right."""


@dataclass(frozen=True, slots=True)
class Face:
    """A face: box and points in pixels of the image it was found in; no points, no confidence where none is given."""

    box: Box
    confidence: float | None = None
    points: Points | None = None

    @property
    def has_place(self) -> bool:
        """Whether all of it is numbers, and its points, if it has any, are not all in one place."""
        points = self.points or ()
        numbers = [*self.box, *(value for point in points for value in point)]
        return all(map(math.isfinite, numbers)) and (not points or len(set(points)) > 1)

    def scaled(self, across: float, down: float | None = None) -> Face:
        """The same face in an image that is `across` times as wide and `down` times as high (None: the same)."""
        down = across if down is None else down
        x1, y1, x2, y2 = self.box
        points = None if self.points is None else tuple((x * across, y * down) for x, y in self.points)
        return Face((x1 * across, y1 * down, x2 * across, y2 * down), self.confidence, points)

    def moved(self, x: float, y: float) -> Face:
        """The same face, x pixels further right and y further down."""
        x1, y1, x2, y2 = self.box
        points = None if self.points is None else tuple((a + x, b + y) for a, b in self.points)
        return Face((x1 + x, y1 + y, x2 + x, y2 + y), self.confidence, points)


class FaceDetector(Protocol):
    """What finds faces. One per process or thread: OpenCV's detectors keep state while they search."""

    config: DetectorConfig

    def detect(self, image: Pixels, *, every: bool = False) -> list[Face]:
        """Faces in an upright RGB image (H, W, 3) uint8, each once; may be empty.

        Args: every: search all sizes, for small faces beside large ones; else stop at the first that shows any.
        """
        ...


def search_sides(longest: int, first: int, last: int) -> list[int]:
    """Long sides at which a photo is searched, in turn: from `first` on twice the one before, up to `last` and never
    above the photo's own, `longest`. A last step that would hardly be larger is left out."""
    last = min(longest, last)
    sides = [min(first, last)]
    while sides[-1] * 1.2 < last:
        sides.append(min(2 * sides[-1], last))
    return sides


def distinct(faces: Sequence[Face], most: float = 0.3) -> list[Face]:
    """Of faces that overlap by more than `most` (IoU), only the surest: found at two sizes, a face counts once."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -(face.confidence or 0.0)):
        if all(overlap(face.box, other.box) <= most for other in kept):
            kept.append(face)
    return kept
