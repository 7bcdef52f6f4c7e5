"""Faces by YuNet (Wu, Peng and Yu, Machine Intelligence Research 2023): box, five points and a confidence each.

The network is a file of 0.1 to 0.2 MB that travels as bytes; OpenCV runs it. It sees faces of about 10 to 300 pixels of
the image it is given, so a photo is searched at several sizes. How sure it is of one depends on how many pixels it saw:
small true faces get less than large false ones. So what the search finds is only a candidate, and each is looked at
again, alone, at one size; that look's confidence decides, and its points are exact however small the search was.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from retrieval.images.boxes import crop, expand_box, overlap
from retrieval.images.detectors.face import Face, distinct, search_sides
from retrieval.images.pixels import Pixels, resize
from retrieval.images.settings import DetectorConfig

_MOST_FACES = 5000  # boxes before those that overlap are merged
_OVERLAP = 0.3  # OpenCV's default for the same
_CANDIDATE = 0.4  # confidence from which a face of the search is looked at again
_LOOK, _LOOK_SIDE = 160, 80  # pixels of the second look, and of the face's longer side in it
_SEEN_WELL = (56.0, 112.0)  # pixels of a face that the search itself saw at about that size: one look is enough
_SURE_SIDE = 32  # pixels of the searched image: of faces half as large few are missed
_LEAST_SIDE = 64  # with a side of 32 and the other longer, OpenCV 4.14 answers with what lies in its memory


class YunetDetector:
    """A loaded network.

    Raises: ValueError if the bytes are no such network.
    """

    def __init__(self, config: DetectorConfig, network: bytes) -> None:
        self.config = config
        model, none = np.frombuffer(network, np.uint8), np.empty(0, np.uint8)
        try:
            self._network = cv2.FaceDetectorYN.create(
                "onnx", model, none, (320, 320), min(_CANDIDATE, config.min_confidence), _OVERLAP, _MOST_FACES
            )
            self._search(np.zeros((32, 32, 3), np.uint8), 32)
        except (cv2.error, ValueError) as error:  # OpenCV's own text is a page of C++
            raise ValueError(
                f"The {len(network)} bytes given as YuNet are no network that OpenCV's FaceDetectorYN runs. "
                f"`python -m ray_jobs.weights` says which file it is."
            ) from error

    def detect(self, image: Pixels, *, every: bool = False) -> list[Face]:
        """See `FaceDetector`. The surest first.

        Without `every` the search ends at the size that shows a face of 32 pixels: where the faces seen are smaller,
        others as large as they may have been missed, and one of those may be the better one.
        """
        longest, config, found = max(image.shape[:2]), self.config, list[Face]()
        last = config.all_side if every else config.max_detect_side
        for side in search_sides(longest, config.detect_side, last):
            for candidate in self._search(image, side):
                if any(overlap(candidate.box, face.box) > _OVERLAP for face in found):
                    continue
                if (face := self._look_again(image, candidate, side / longest)) is not None:
                    found.append(face)
            if not every and any(min(_sides(face)) * side >= _SURE_SIDE * longest for face in found):
                break
        return distinct(found, _OVERLAP)

    def _look_again(self, image: Pixels, face: Face, scale: float) -> Face | None:
        """The face as it is seen alone, if it is one. Args: scale: of the search that found it."""
        longer = max(_sides(face))
        if _SEEN_WELL[0] <= longer * scale <= _SEEN_WELL[1] and (face.confidence or 0) >= self.config.min_confidence:
            return face
        square = expand_box(face.box, (_LOOK / _LOOK_SIDE - 1) / 2)
        x, y, right, _ = (math.floor(edge + 0.5) for edge in square)
        if right <= x:
            return None
        try:
            part = crop(image, (x, y, right, y + right - x), _LOOK)
        except ValueError:  # a box beside the image
            return None
        across = (right - x) / _LOOK
        seen = (one.scaled(across).moved(x, y) for one in self._search(part, _LOOK))
        same = [one for one in seen if overlap(one.box, face.box) > _OVERLAP]
        best = max(same, key=lambda one: one.confidence or 0, default=None)
        return best if best is not None and (best.confidence or 0) >= self.config.min_confidence else None

    def _search(self, image: Pixels, side: int) -> list[Face]:
        height, width = image.shape[:2]
        scale = min(1.0, side / max(height, width))
        small = resize(image, max(1, round(width * scale)), max(1, round(height * scale)))
        across, down = width / small.shape[1], height / small.shape[0]
        below, beside = (max(0, _LEAST_SIDE - length) for length in small.shape[:2])
        bgr = cv2.copyMakeBorder(cv2.cvtColor(small, cv2.COLOR_RGB2BGR), 0, below, 0, beside, cv2.BORDER_CONSTANT)
        self._network.setInputSize((bgr.shape[1], bgr.shape[0]))
        _, rows = self._network.detect(bgr)
        return [_face(row).scaled(across, down) for row in np.asarray(rows if rows is not None else [])]


def _sides(face: Face) -> tuple[float, float]:
    return face.box[2] - face.box[0], face.box[3] - face.box[1]


def _face(row: np.ndarray) -> Face:
    """A row of OpenCV's answer: x, y, width, height, five points, confidence. Its right eye is at the image's left."""
    x, y, width, height, *rest = (float(value) for value in row)
    points = tuple(zip(rest[0:10:2], rest[1:10:2], strict=True))
    return Face((x, y, x + width, y + height), rest[10], points)
