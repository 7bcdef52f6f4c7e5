"""Which detector looks for faces, and which of the faces found is the one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from retrieval.images.detectors.face import Face, FaceDetector
from retrieval.images.detectors.haar import HaarDetector
from retrieval.images.detectors.yunet import YunetDetector
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
