"""From a photograph's bytes to a stored crop: the kernel that gallery and query photos share, and one part's work.

A collection is made in numbered parts. `plan/part-N.parquet` says which photos part N is made of; `ingest_part` turns
it into `images/part-N.parquet` and `rejected/part-N.parquet`, both published atomically and always with the same
bytes, so that a part may be done again at any time, by anyone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from retrieval import images
from retrieval.faces import Box, DetectorConfig, FaceDetector, best_face, crop, expand_box
from retrieval.images import BadImage, Pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig(DetectorConfig):
    """What is done to every photograph, gallery or query. Travels in the model bundle as `preparation`."""

    crop: Literal["haar", "box", "none"] = "haar"
    """haar: cut out the best face found. box: cut out the box that the source gives. none: the whole photo, stretched
    to a square (for sets that are cropped already)."""
    margin: float = 0.15
    """Room around the face on each side, as a part of the face box's side. Negative cuts tighter."""
    size: int = 218
    """Side of the stored square, in pixels."""
    quality: int = 95
    """JPEG quality of the stored square, 1 to 100."""
    max_pixels: int = 50_000_000
    """Larger photos are rejected before they are decoded."""
    min_side: int = 16
    """Photos with a shorter side than this many pixels are rejected."""

    def __post_init__(self) -> None:
        DetectorConfig.__post_init__(self)  # super() does not work in a dataclass with slots
        if self.crop not in ("haar", "box", "none"):
            raise ValueError(f"Unknown crop '{self.crop}'. Choose one of: haar, box, none.")
        if not -0.4 <= self.margin <= 2:
            raise ValueError(f"margin is {self.margin}, expected -0.4 to 2, for example 0.15.")
        if not 16 <= self.size <= 2048:
            raise ValueError(f"size is {self.size}, expected 16 to 2048 pixels.")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality is {self.quality}, expected 1 to 100.")
        if not 1 <= self.max_pixels <= images.MAX_PIXELS_LIMIT:
            raise ValueError(f"max_pixels is {self.max_pixels}, expected 1 to {images.MAX_PIXELS_LIMIT}.")


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
        data: the photo's bytes, in any format that `images.decode` reads.
        detector: needed for crop='haar' only; made once per process, `FaceDetector(config)`.
        box: the source's own face box in upright pixels; needed for crop='box' only.

    Raises: BadImage with a reason of `images.decode`, or no-face, no-box or bad-box.
    """
    if config.crop == "none":
        pixels, reduction = _decode(data, config, reduce_to=config.size)
        height, width = pixels.shape[:2]
        whole = (0.0, 0.0, float(width * reduction), float(height * reduction))
        return _encoded(images.resize(pixels, config.size, config.size), config, whole)
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


def _decode(data: bytes, config: PrepareConfig, reduce_to: int | None) -> tuple[Pixels, int]:
    return images.decode_reduced(data, max_pixels=config.max_pixels, min_side=config.min_side, reduce_to=reduce_to)


def _cut(data: bytes, config: PrepareConfig, square: Box) -> Prepared:
    """Crop a known square from the coarsest decode that still gives it `size` pixels."""
    short = min(images.image_size(data))
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
    return Prepared(jpeg=images.encode_jpeg(face, config.quality), width=width, height=height, box=box)
