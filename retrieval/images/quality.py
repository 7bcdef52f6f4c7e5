"""How good a face is to compare by: its size, sharpness, how far it is turned, and how sure the detector was."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from retrieval.images.detectors.face import Face, Points
from retrieval.images.pixels import BadImage, Pixels, grey, resize
from retrieval.images.settings import PrepareConfig

_SHARPNESS_SIDE = 112


@dataclass(frozen=True, slots=True)
class Quality:
    """What is known of a face; None where the detector does not say."""

    confidence: float | None
    size: float
    """Shorter side of the face's box, in pixels of the upright source photo."""
    sharpness: float
    """See `sharpness_of`."""
    turn: float | None
    """See `turn_of`."""


def measure(face: Face, cut: Pixels) -> Quality:
    """Args: face: in pixels of the source photo. cut: (size, size, 3) uint8, as it will be stored."""
    x1, y1, x2, y2 = face.box
    turn = None if face.points is None else turn_of(face.points)
    return Quality(face.confidence, min(x2 - x1, y2 - y1), sharpness_of(cut), turn)


def sharpness_of(cut: Pixels) -> float:
    """Standard deviation of the Laplacian over that of the grey values, of the face at 112 pixels: 0 is one colour.

    Dividing makes it the same for pale and strong contrast. A face enlarged from few pixels is as blurred as one out
    of focus, and counts so.

    Args: cut: (H, W, 3) uint8.
    """
    image = grey(resize(cut, _SHARPNESS_SIDE, _SHARPNESS_SIDE)).astype(np.float32)
    spread = float(image.std())
    return float(cv2.Laplacian(image, cv2.CV_32F).std()) / spread if spread > 0 else 0.0


def turn_of(points: Points) -> float:
    """How far the nose lies from the middle between the eyes, along their line, in distances of the eyes.

    0 is seen from the front, about 0.5 turned by 45 degrees, above 1 in profile; positive towards the image's right.
    Eyes in one place: 0, since nothing can be said.
    """
    (lx, ly), (rx, ry), (nx, ny) = points[:3]
    across, down = rx - lx, ry - ly
    apart = across * across + down * down
    return ((nx - (lx + rx) / 2) * across + (ny - (ly + ry) / 2) * down) / apart if apart > 0 else 0.0


def refusal(quality: Quality, config: PrepareConfig) -> BadImage | None:
    """Why a face is too poor to be stored, if it is: face-too-small, face-blurred or face-turned."""
    if quality.size < config.min_face_size:
        return BadImage("face-too-small", f"{quality.size:.0f} pixels, the limit is {config.min_face_size}")
    if quality.sharpness < config.min_sharpness:
        return BadImage("face-blurred", f"sharpness {quality.sharpness:.3f}, the limit is {config.min_sharpness:g}")
    if quality.turn is not None and not math.fabs(quality.turn) <= config.max_turn:
        return BadImage("face-turned", f"turned by {quality.turn:+.2f}, the limit is {config.max_turn:g}")
    return None
