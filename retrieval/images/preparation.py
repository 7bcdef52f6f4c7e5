"""From a photograph's bytes to a stored crop: the kernel that gallery and query photos share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.images.alignment import align, scale_of
from retrieval.images.boxes import crop, expand_box
from retrieval.images.detectors.face import Face, FaceDetector, Points
from retrieval.images.faces import best_first, largest_first
from retrieval.images.native import one_photo
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
from retrieval.images.quality import Quality, measure, refusal
from retrieval.images.settings import Box, PrepareConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A photograph made ready: `jpeg` is (height, width) pixels, cut from `box` of the upright source photo; where a
    face was looked for also its points in that photo, if the detector gives any, and its quality."""

    jpeg: bytes
    width: int
    height: int
    box: Box
    points: Points | None = None
    quality: Quality | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Faces:
    """All faces of a photo, numbered from the largest, 0. Each number is in one of the two.

    `best` is the number of the kept face that `prepare` would have taken; None if none is kept. `seen`: all of them,
    as they were found, in pixels of the upright source photo.
    """

    kept: dict[int, Prepared]
    refused: dict[int, BadImage]
    best: int | None
    seen: tuple[Face, ...] = ()


def prepare(data: bytes, config: PrepareConfig, detector: FaceDetector | None, box: Box | None = None) -> Prepared:
    """Decode, find the best face that is good enough, cut it out, resize, encode.

    Args:
        data: the photo's bytes, in any format that `pixels.decode` reads.
        detector: needed for crop face and aligned only; made once per process, `faces.make_detector(config, ...)`.
        box: the source's own box in upright pixels; needed for crop='box'. With crop='fit' the photo is cut to it, at
            full resolution, and shrunk as much as the whole photo would be (the benchmarks' rule for queries).

    Raises: BadImage with a reason of `pixels.decode`, or no-face, no-box or bad-box; or of `quality.refusal`, where no
        face is good enough: then the best one's.
    """
    with one_photo():
        return _prepare(data, config, detector, box)


def _prepare(data: bytes, config: PrepareConfig, detector: FaceDetector | None, box: Box | None) -> Prepared:
    if config.crop == "none":
        pixels, reduction = _decode(data, config, reduce_to=config.size)
        height, width = pixels.shape[:2]
        whole = (0.0, 0.0, float(width * reduction), float(height * reduction))
        return _encoded(resize(pixels, config.size, config.size), config, whole)
    if config.crop == "fit":
        return _fit(data, config, box)
    if config.crop == "box":
        return _cut(data, config, _checked(box, config))
    # Twice the stored size serves both the search and the crop of a portrait, in one decode.
    photo = _Searched.of(data, config, detector, reduce_to=max(2 * config.size, config.detect_side))
    reasons = []
    for face in best_first(photo.faces, *photo.size):
        made = photo.cut(face)
        if isinstance(made, Prepared):
            return made
        reasons.append(made)
    raise reasons[0]


def prepare_all(data: bytes, config: PrepareConfig, detector: FaceDetector | None) -> Faces:
    """As `prepare`, for crop face and aligned: each face of the photo, also the small ones beside the large.

    Raises: BadImage with a reason of `pixels.decode`, or no-face. A face that is too poor does not raise.
    """
    with one_photo():
        return _prepare_all(data, config, detector)


def _prepare_all(data: bytes, config: PrepareConfig, detector: FaceDetector | None) -> Faces:
    width, height = image_size(data)
    searched = math.ceil(config.all_side * min(width, height) / max(width, height))
    photo = _Searched.of(data, config, detector, reduce_to=max(2 * config.size, searched), every=True)
    faces = largest_first(photo.faces)
    small = [face for face in faces if photo.is_small(face)]
    fine = photo.finer(small) if small else None
    cuts = [photo.cut(face, fine) for face in faces]
    kept = {number: cut for number, cut in enumerate(cuts) if isinstance(cut, Prepared)}
    order = (faces.index(face) for face in best_first(faces, *photo.size))
    return Faces(
        kept=kept,
        refused={number: cut for number, cut in enumerate(cuts) if isinstance(cut, BadImage)},
        best=next((number for number in order if number in kept), None),
        seen=tuple(face.scaled(photo.reduction) for face in faces),
    )


@dataclass(frozen=True, slots=True)
class _Searched:
    """A decoded photo and the faces found in it, in pixels of that decode."""

    data: bytes
    config: PrepareConfig
    pixels: Pixels
    reduction: int
    faces: list[Face]

    @classmethod
    def of(
        cls, data: bytes, config: PrepareConfig, detector: FaceDetector | None, reduce_to: int, every: bool = False
    ) -> _Searched:
        if detector is None:
            raise ValueError(f"crop='{config.crop}' needs a detector. Give `faces.make_detector(config, network)`.")
        pixels, reduction = _decode(data, config, reduce_to=reduce_to)
        height, width = pixels.shape[:2]
        faces = [face for face in detector.detect(pixels, every=every) if face.has_place]
        if not faces:
            raise BadImage("no-face", f"no face found in {width * reduction} x {height * reduction} pixels")
        return cls(data, config, pixels, reduction, faces)

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[1], self.pixels.shape[0]

    def side(self, face: Face) -> float:
        """Side of the square that is cut for a face, in pixels of this decode."""
        if self.config.crop == "aligned":
            return self.config.size / max(scale_of(_points(face), self.config.size, self.config.margin), 1e-9)
        box = expand_box(face.box, self.config.margin)
        return box[2] - box[0]

    def is_small(self, face: Face) -> bool:
        """Whether a finer decode of the photo has more of the face to show."""
        return self.reduction > 1 and self.side(face) < self.config.size

    def finer(self, faces: Sequence[Face]) -> _Searched:
        """The coarsest decode in which each of these faces has the pixels to be stored with."""
        least = min(self.side(face) for face in faces) * self.reduction
        short = min(image_size(self.data))
        pixels, reduction = _decode(self.data, self.config, reduce_to=math.ceil(short * self.config.size / least))
        return _Searched(self.data, self.config, pixels, reduction, [])

    def cut(self, face: Face, fine: _Searched | None = None) -> Prepared | BadImage:
        """A face of this decode as it is stored, or why it is too poor. Args: fine: where small faces are cut from;
        None makes a finer decode for this face alone."""
        config, source = self.config, self
        if self.is_small(face):
            source = fine or self.finer([face])
        there = face.scaled(self.reduction / source.reduction)
        if config.crop == "aligned":
            pixels, box = align(source.pixels, _points(there), config.size, config.margin)
        else:
            box = expand_box(there.box, config.margin)
            try:
                pixels = crop(source.pixels, box, config.size)
            except ValueError as error:  # a detector's box beside the photo
                return BadImage("bad-box", str(error))
        whole = there.scaled(source.reduction)
        quality = measure(whole, pixels)
        if (bad := refusal(quality, config)) is not None:
            return bad
        return _encoded(pixels, config, _scaled(box, source.reduction), whole.points, quality)


def _points(face: Face) -> Points:
    if face.points is None:
        raise ValueError("crop='aligned' needs a detector that gives five points: yunet.")
    return face.points


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


def _encoded(
    face: Pixels, config: PrepareConfig, box: Box, points: Points | None = None, quality: Quality | None = None
) -> Prepared:
    height, width = face.shape[:2]
    jpeg = encode_jpeg(face, config.quality)
    return Prepared(jpeg=jpeg, width=width, height=height, box=box, points=points, quality=quality)
