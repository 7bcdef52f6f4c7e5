"""From a photograph's bytes to a stored crop: the kernel that gallery and query photos share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from retrieval.images.faces import FaceDetector, best_face, crop, expand_box
from retrieval.images.pixels import (
    BadImage,
    Pixels,
    decode,
    encode_jpeg,
    fitted,
    image_size,
    resize,
    upright_size,
)
from retrieval.images.settings import Box, PrepareConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A photograph made ready: `jpeg` is (height, width) pixels, cut from `box` of the upright source photo."""

    jpeg: bytes
    width: int
    height: int
    box: Box


def prepare(data: bytes, config: PrepareConfig, detector: FaceDetector | None, box: Box | None = None) -> Prepared:
    """Decode, find the face, cut it out, resize, encode.

    Args:
        data: the photo's bytes, in any format that `pixels.decode` reads.
        detector: needed for crop='haar' only; made once per process, `FaceDetector(config)`.
        box: the source's own box in upright pixels; needed for crop='box'. With crop='fit' the photo is cut to it, at
            full resolution, and shrunk as much as the whole photo would be (the benchmarks' rule for queries).

    Raises: BadImage with a reason of `pixels.decode`, or no-face, no-box or bad-box.
    """
    if config.crop == "none":
        pixels, reduction = _decode(data, config, reduce_to=config.size)
        height, width = pixels.shape[:2]
        whole = (0.0, 0.0, float(width * reduction), float(height * reduction))
        return _encoded(resize(pixels, config.size, config.size), config, whole)
    if config.crop == "fit":
        return _fit(data, config, box)
    if config.crop == "box":
        return _cut(data, config, _checked(box, config))
    if detector is None:
        raise ValueError("crop='haar' needs a FaceDetector. Give `FaceDetector(config)`.")
    # Twice the stored size serves both the search and the crop of a portrait, in one decode.
    pixels, reduction = _decode(data, config, reduce_to=max(2 * config.size, config.detect_side))
    height, width = pixels.shape[:2]
    boxes = detector.detect(pixels)
    if not boxes:
        raise BadImage("no-face", f"no face found in {width * reduction} x {height * reduction} pixels")
    square = expand_box(best_face(boxes, width, height), config.margin)
    if reduction > 1 and square[2] - square[0] < config.size:
        return _cut(data, config, _scaled(square, reduction))  # a small face: cut it from a finer decode
    return _encoded(crop(pixels, square, config.size), config, _scaled(square, reduction))


def _fit(data: bytes, config: PrepareConfig, box: Box | None) -> Prepared:
    """The whole photo, or the part in `box`, in its own shape."""
    width, height = upright_size(data)
    if box is None:
        wanted = fitted(width, height, config.size)
        # The short side at which neither side of the reduced photo is smaller than wanted.
        enough = math.ceil(min(width, height) * max(wanted) / max(width, height))
        pixels, _ = _decode(data, config, reduce_to=enough)
        return _encoded(resize(pixels, *wanted), config, (0.0, 0.0, float(width), float(height)))
    if not all(math.isfinite(edge) for edge in box):
        raise BadImage("bad-box", f"{box} has an edge that is no number")
    # Rounded to whole pixels, halves to even, as Pillow does and so the published figures.
    x1, y1, x2, y2 = (
        max(0, round(box[0])),
        max(0, round(box[1])),
        min(width, round(box[2])),
        min(height, round(box[3])),
    )
    if x2 - x1 < 1 or y2 - y1 < 1:
        raise BadImage("bad-box", f"{box} holds no pixel of the {width} x {height} photo")
    pixels, _ = _decode(data, config, reduce_to=None)
    part = np.ascontiguousarray(pixels[y1:y2, x1:x2])
    long_side = config.size * max(x2 - x1, y2 - y1) / max(width, height)
    wanted = fitted(x2 - x1, y2 - y1, long_side)
    return _encoded(resize(part, *wanted), config, (float(x1), float(y1), float(x2), float(y2)))


def _decode(data: bytes, config: PrepareConfig, reduce_to: int | None) -> tuple[Pixels, int]:
    return decode(data, max_pixels=config.max_pixels, min_side=config.min_side, reduce_to=reduce_to)


def _cut(data: bytes, config: PrepareConfig, square: Box) -> Prepared:
    """Crop a known square from the coarsest decode that still gives it `size` pixels."""
    short = min(image_size(data))
    pixels, reduction = _decode(data, config, reduce_to=math.ceil(short * config.size / (square[2] - square[0])))
    height, width = pixels.shape[:2]
    if square[2] - square[0] > 4 * max(width, height) * reduction:
        raise BadImage("bad-box", f"the box {square} is more than 4 times as large as the photo")
    try:
        face = crop(pixels, _scaled(square, 1 / reduction), config.size)
    except ValueError as error:
        raise BadImage("bad-box", str(error)) from error
    return _encoded(face, config, square)


def _checked(box: Box | None, config: PrepareConfig) -> Box:
    if box is None:
        raise BadImage("no-box", "crop='box' and the source gives no box for this photo")
    if not all(math.isfinite(edge) for edge in box) or box[2] <= box[0] or box[3] <= box[1]:
        raise BadImage("bad-box", f"{box} is not x1 < x2, y1 < y2")
    return expand_box(box, config.margin)


def _scaled(box: Box, factor: float) -> Box:
    return (box[0] * factor, box[1] * factor, box[2] * factor, box[3] * factor)


def _encoded(face: Pixels, config: PrepareConfig, box: Box) -> Prepared:
    height, width = face.shape[:2]
    return Prepared(jpeg=encode_jpeg(face, config.quality), width=width, height=height, box=box)
