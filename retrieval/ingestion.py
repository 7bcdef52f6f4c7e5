"""From a photograph's bytes to a stored crop: the kernel that gallery and query photos share, and one part's work.

A collection is made in numbered parts. `plan/part-N.parquet` says which photos part N is made of; `ingest_part` turns
it into `images/part-N.parquet` and `rejected/part-N.parquet`, both published atomically and always with the same
bytes, so that a part may be done again at any time, by anyone.
"""

from __future__ import annotations

import functools
import hashlib
import math
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from retrieval import images
from retrieval.artifacts import IMAGE_SCHEMA, REJECTED_SCHEMA, Folder, hash_file, part_name
from retrieval.faces import Box, DetectorConfig, FaceDetector, best_face, crop, expand_box
from retrieval.images import BadImage, Pixels
from retrieval.listing import open_uri

PLAN_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),  # relative to the source's root, or absolute
        ("size", pa.int64()),  # bytes, -1 where the photo was missing when the source was listed
        ("label", pa.string()),
        ("split", pa.string()),
        ("attributes", pa.list_(pa.int8())),
        ("box", pa.list_(pa.float32())),  # four or null; pyarrow 25 cannot read nulls in a fixed-size list back
    ]
)
MAX_BYTES = 256 << 20
"""Larger files are not read: a worker holds one photo at a time, and no photograph is that large."""
_STAGES = {"missing": "read", "too-many-bytes": "read", "not-readable": "read", "no-face": "detect"}
_STAGES |= {"no-box": "crop", "bad-box": "crop"}  # all others: decode
_ROWS_PER_GROUP = 64  # what a reader must take in for one image


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig(DetectorConfig):
    """What is done to every photograph, gallery or query. Travels in the model bundle as `preparation`."""

    crop: Literal["haar", "box", "none", "fit"] = "haar"
    """haar: cut out the best face found. box: cut out the box that the source gives. none: the whole photo, stretched
    to a square (for sets that are cropped already). fit: the whole photo in its own shape (for places)."""
    margin: float = 0.15
    """Room around the face on each side, as a part of the face box's side. Negative cuts tighter."""
    size: int = 218
    """Side of the stored square, in pixels; with fit the longer side, at most: smaller photos are not enlarged."""
    quality: int = 95
    """JPEG quality of the stored square, 1 to 100."""
    max_pixels: int = 50_000_000
    """Larger photos are rejected before they are decoded."""
    min_side: int = 16
    """Photos with a shorter side than this many pixels are rejected."""

    def __post_init__(self) -> None:
        DetectorConfig.__post_init__(self)  # super() does not work in a dataclass with slots
        if self.crop not in ("haar", "box", "none", "fit"):
            raise ValueError(f"Unknown crop '{self.crop}'. Choose one of: haar, box, none, fit.")
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
        box: the source's own box in upright pixels; needed for crop='box'. With crop='fit' the photo is cut to it, at
            full resolution, and shrunk as much as the whole photo would be (the benchmarks' rule for queries).

    Raises: BadImage with a reason of `images.decode`, or no-face, no-box or bad-box.
    """
    if config.crop == "none":
        pixels, reduction = _decode(data, config, reduce_to=config.size)
        height, width = pixels.shape[:2]
        whole = (0.0, 0.0, float(width * reduction), float(height * reduction))
        return _encoded(images.resize(pixels, config.size, config.size), config, whole)
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
    width, height = images.upright_size(data)
    if box is None:
        wanted = images.fitted(width, height, config.size)
        # The short side at which neither side of the reduced photo is smaller than wanted.
        enough = math.ceil(min(width, height) * max(wanted) / max(width, height))
        pixels, _ = _decode(data, config, reduce_to=enough)
        return _encoded(images.resize(pixels, *wanted), config, (0.0, 0.0, float(width), float(height)))
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
    wanted = images.fitted(x2 - x1, y2 - y1, long_side)
    return _encoded(images.resize(part, *wanted), config, (float(x1), float(y1), float(x2), float(y2)))


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


@dataclass(frozen=True, kw_only=True, slots=True)
class PartResult:
    """What came of one part. `files` is relative name -> sha256 of the part's three files."""

    part: int
    taken: int
    stored: int
    rejected: dict[str, int]
    files: dict[str, str]
    resumed: bool
    """Both outputs were there already and were only counted."""


def ingest_part(folder: Folder, part: int, source: Folder, config: PrepareConfig) -> PartResult:
    """Do one part of a collection: read its plan, write its images and its rejected photos. Safe to repeat.

    Args:
        folder: the collection, with `plan/` written.
        source: the root that the plan's relative uris are below.
    """
    plan, stored, rejected = (f"{kind}/{part_name(part)}" for kind in ("plan", "images", "rejected"))
    rows = folder.read_table(plan)
    resumed = folder.exists(stored) and folder.exists(rejected)
    if not resumed:
        kept, refused = _prepare_rows(rows.to_pylist(), source, config)
        options: dict[str, Any] = {"row_group_size": _ROWS_PER_GROUP, "compression": "none"}  # JPEG does not shrink
        folder.write_table(stored, pa.Table.from_pylist(kept, IMAGE_SCHEMA), use_dictionary=["label"], **options)
        folder.write_table(rejected, pa.Table.from_pylist(refused, REJECTED_SCHEMA))
    return PartResult(
        part=part,
        taken=rows.num_rows,
        stored=folder.read_table(stored, columns=["image_id"]).num_rows,
        rejected=dict(Counter(folder.read_table(rejected, columns=["reason"]).column("reason").to_pylist())),
        files={name: hash_file(folder, name) for name in (plan, stored, rejected)},
        resumed=resumed,
    )


def _prepare_rows(
    rows: list[dict[str, Any]], source: Folder, config: PrepareConfig
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Plan rows -> rows of IMAGE_SCHEMA and rows of REJECTED_SCHEMA, each in the plan's order."""
    kept, refused = [], []
    detector = _detector(config)
    for row in rows:
        try:
            data = _read(source, row["uri"], row["size"])
            done = prepare(data, config, detector, tuple(row["box"]) if row["box"] else None)
        except BadImage as bad:
            stage = _STAGES.get(bad.reason, "decode")
            refused.append(
                {"image_id": row["image_id"], "stage": stage, "reason": bad.reason, "detail": bad.detail[:500]}
            )
            continue
        known = {name: row[name] for name in ("image_id", "label", "split", "attributes")}
        made = {"jpeg": done.jpeg, "width": done.width, "height": done.height, "box": done.box}
        kept.append(known | made | {"content_hash": hashlib.sha256(data).hexdigest()})
    return kept, refused


@functools.lru_cache(maxsize=2)
def _detector(config: PrepareConfig) -> FaceDetector | None:
    """Kept between the parts that one worker process does."""
    return FaceDetector(config) if config.crop == "haar" else None


def _read(source: Folder, uri: str, size: int) -> bytes:
    """A photo's bytes. Storage that fails is asked three times, since a network may come back."""
    if size < 0:
        raise BadImage("missing", "named by the source's lists, and there is no such file")
    if size > MAX_BYTES:
        raise BadImage("too-many-bytes", f"{size} bytes, the limit is {MAX_BYTES}")
    fs, path = open_uri(source, uri)
    for wait in (0.1, 1.0, None):
        try:
            with fs.open_input_stream(path) as stream:
                return stream.read()
        except FileNotFoundError as error:
            raise BadImage("missing", "it was there when the source was listed, and is gone") from error
        except OSError as error:
            if wait is None or isinstance(error, PermissionError):
                raise BadImage("not-readable", f"{type(error).__name__}: {error}") from error
            time.sleep(wait)
    raise AssertionError("unreachable: the last try returns or raises")
