"""From a photograph's bytes to a stored crop: the kernel that gallery and query photos share, and one part's work.

A collection is made in numbered parts. `plan/part-N.parquet` says which photos part N is made of; `ingest_part` turns
it into `images/part-N.parquet` and `rejected/part-N.parquet`, both published atomically and always with the same
bytes, so that a part may be done again at any time, by anyone.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from retrieval.artifacts.collection import IMAGE_SCHEMA, REJECTED_SCHEMA
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.hashing import hash_file
from retrieval.artifacts.progress import Progress, counted, silent
from retrieval.data.source import open_uri
from retrieval.images.detectors.face import FaceDetector
from retrieval.images.faces import make_detector
from retrieval.images.pixels import BadImage, limit_threads
from retrieval.images.preparation import prepare
from retrieval.images.settings import PrepareConfig

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
class PartResult:
    """What came of one part. `files` is relative name -> sha256 of the part's three files."""

    part: int
    taken: int
    stored: int
    rejected: dict[str, int]
    files: dict[str, str]
    resumed: bool
    """Both outputs were there already and were only counted."""


def ingest_part(
    folder: Folder, part: int, source: Folder, config: PrepareConfig, progress: Progress = silent
) -> PartResult:
    """Do one part of a collection: read its plan, write its images and its rejected photos. Safe to repeat.

    Args:
        folder: the collection, with `plan/` written.
        source: the root that the plan's relative uris are below.
    """
    limit_threads(1)  # as many parts are done at once as there are cores
    plan, stored, rejected = (f"{kind}/{part_name(part)}" for kind in ("plan", "images", "rejected"))
    rows = folder.read_table(plan)
    resumed = folder.exists(stored) and folder.exists(rejected)
    if not resumed:
        kept, refused = _prepare_rows(rows.to_pylist(), source, config, progress)
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
    rows: list[dict[str, Any]], source: Folder, config: PrepareConfig, progress: Progress
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Plan rows -> rows of IMAGE_SCHEMA and rows of REJECTED_SCHEMA, each in the plan's order."""
    kept, refused = [], []
    detector = _detector(config)
    for row in counted(rows, "photos", progress):
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
    return make_detector(config)


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
