"""From a photograph's bytes to a stored crop: the kernel that gallery and query photos share, and one part's work.

A collection is made in numbered parts. `plan/part-N.parquet` says which photos part N is made of; `ingest_part` turns
it into `images/part-N.parquet` and `rejected/part-N.parquet`, both published atomically and always with the same
bytes, so that a part may be done again at any time, by anyone. Their done-markers say what was counted.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from retrieval.artifacts.collection import FACE_STAGE, IMAGE_OPTIONS, IMAGE_SCHEMA, REJECTED_SCHEMA, detector_of
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import hash_of
from retrieval.artifacts.progress import Progress, counted, silent
from retrieval.artifacts.storage.patience import patiently
from retrieval.data.reading import Ahead
from retrieval.images.detectors.face import FaceDetector
from retrieval.images.faces import make_detector
from retrieval.images.pixels import BadImage, limit_threads
from retrieval.images.preparation import Prepared, prepare, prepare_all
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

_STAGES = {
    **dict.fromkeys(("missing", "too-many-bytes", "not-readable"), "read"),
    "no-face": "detect",
    **dict.fromkeys(("no-box", "bad-box"), "crop"),
    **dict.fromkeys(("face-too-small", "face-blurred", "face-turned"), "quality"),
}  # all others: decode


@dataclass(frozen=True, kw_only=True, slots=True)
class PartResult:
    """What came of one part. `files` is relative name -> sha256 of the part's three files."""

    part: int
    taken: int
    """Photos."""
    photos: int
    """Photos of which something was stored."""
    stored: int
    """Rows: photos, or with faces=all their faces."""
    rejected: dict[str, int]
    """Photos of which nothing was stored, by reason."""
    faces: int
    """With faces=all: faces that were found, counted by their numbers; else as `stored`."""
    refused: dict[str, int]
    """With faces=all: faces that were found and are too poor, by reason; also those of rejected photos."""
    broken: int
    """Photos that could not be read or decoded, or ended what did: not those that only show nothing of use."""
    files: dict[str, str]
    resumed: bool
    """Both outputs were there already, and their markers were read."""


def ingest_part(
    folder: Folder,
    part: int,
    source: Folder,
    config: PrepareConfig,
    progress: Progress = silent,
    without: Mapping[int, BadImage] | None = None,
) -> PartResult:
    """Do one part of a collection: read its plan, write its images and its rejected photos. Safe to repeat.

    Args:
        folder: the collection, with `plan/` written, and the detector's network if `config` needs one.
        source: the root that the plan's relative uris are below.
        without: photos to leave out, by their position in the plan, and why: they ended whoever looked at them.
    """
    limit_threads(1)  # as many parts are done at once as there are cores
    plan, stored, rejected = (f"{kind}/{part_name(part)}" for kind in ("plan", "images", "rejected"))
    images, reasons = folder.done(stored), folder.done(rejected)
    resumed = images is not None and reasons is not None
    if images is None or reasons is None:
        rows = folder.read_table(plan).to_pylist()
        detector = _detector(config, detector_of(folder) if config.needs_network else None)
        kept, refused = _prepare_rows(rows, source, config, detector, progress, without or {})
        table = pa.Table.from_pylist(kept, IMAGE_SCHEMA)
        told = _counts(rows, kept, refused, config)
        with ThreadPoolExecutor(1, thread_name_prefix="write-images") as pool:  # both wait for the disk
            written = pool.submit(
                folder.write_table, stored, table, about={}, use_dictionary=["label"], **IMAGE_OPTIONS
            )
            reasons = folder.write_table(rejected, pa.Table.from_pylist(refused, REJECTED_SCHEMA), about=told)
            images = written.result()
    files = {plan: hash_of(folder, plan), stored: images.sha256, rejected: reasons.sha256}
    return PartResult(part=part, files=files, resumed=resumed, **reasons.about)


def _counts(
    rows: list[dict[str, Any]], kept: list[dict[str, Any]], refused: list[dict[str, Any]], config: PrepareConfig
) -> dict[str, Any]:
    """What PartResult says of a part's photos."""
    of_faces = [row for row in refused if row["stage"] == FACE_STAGE]
    numbered = [row["image_id"] for row in [*kept, *of_faces]]
    return {
        "taken": len(rows),
        "photos": len({row["photo"] for row in kept}),
        "stored": len(kept),
        "faces": _found(numbered) if config.faces == "all" else len(kept),
        "rejected": dict(Counter(row["reason"] for row in refused if row["stage"] != FACE_STAGE)),
        "broken": sum(row["stage"] in ("read", "decode") for row in refused),
        "refused": dict(Counter(row["reason"] for row in of_faces)),
    }


def try_photos(
    folder: Folder,
    part: int,
    source: Folder,
    config: PrepareConfig,
    only: Sequence[int],
    progress: Progress = silent,
) -> list[str]:
    """Do these photos of a part, by their positions in its plan, and write nothing. Returns the image_ids of all."""
    limit_threads(1)
    rows = folder.read_table(f"plan/{part_name(part)}").to_pylist()
    detector = _detector(config, detector_of(folder) if config.needs_network else None)
    progress("photos", 0, len(only))  # from now on it is the next one
    _prepare_rows([rows[at] for at in only], source, config, detector, progress)
    return [row["image_id"] for row in rows]


def _prepare_rows(
    rows: list[dict[str, Any]],
    source: Folder,
    config: PrepareConfig,
    detector: FaceDetector | None,
    progress: Progress,
    without: Mapping[int, BadImage] = MappingProxyType({}),
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Plan rows -> rows of IMAGE_SCHEMA and rows of REJECTED_SCHEMA, each in the plan's order."""
    kept, refused = [], []
    with Ahead(source, rows, leave_out=without) as ahead:
        for at, row in enumerate(counted(rows, "photos", progress)):
            if at in without:
                refused.append(_refused_photo(row, without[at]))
                continue
            work = functools.partial(_prepare_row, row, functools.partial(ahead.read, at), config, detector)
            made, bad = patiently(work, f"preparing the photo {row['image_id']} of {source}")
            kept += made
            refused += bad
    return kept, refused


def _prepare_row(
    row: dict[str, Any], read: Callable[[], bytes], config: PrepareConfig, detector: FaceDetector | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One photo, as `_prepare_rows`. Raises: OSError or MemoryError if the machines fail, which is not the photo's."""
    kept, refused = [], []
    try:
        data = read()
        known = {name: row[name] for name in ("label", "split", "attributes")}
        known |= {"photo": row["image_id"], "content_hash": hashlib.sha256(data).hexdigest()}
        if config.faces == "all":
            faces = prepare_all(data, config, detector)
            kept += [_stored(face, known, number, faces.best) for number, face in faces.kept.items()]
            refused += [_refused(f"{row['image_id']}#{n}", bad, FACE_STAGE) for n, bad in faces.refused.items()]
            if not faces.kept:
                raise next(iter(faces.refused.values()))
        else:
            done = prepare(data, config, detector, tuple(row["box"]) if row["box"] else None)
            kept.append(_stored(done, known))
    except BadImage as bad:
        refused.append(_refused_photo(row, bad))
    return kept, refused


def _stored(
    made: Prepared, known: dict[str, Any], face: int | None = None, labelled: int | None = None
) -> dict[str, Any]:
    """A row of IMAGE_SCHEMA.

    Args: face: its number among all of its photo. labelled: the number of the one that the source's label and
        attributes are said of; the others are somebody else.
    """
    row = known | {"image_id": known["photo"] if face is None else f"{known['photo']}#{face}", "face": face}
    if face != labelled:
        row |= {"label": None, "attributes": None}
    row |= {"jpeg": made.jpeg, "width": made.width, "height": made.height, "box": made.box}
    row["points"] = None if made.points is None else [edge for point in made.points for edge in point]
    row["quality"] = None if made.quality is None else dataclasses.asdict(made.quality)
    return row


def _refused_photo(row: dict[str, Any], bad: BadImage) -> dict[str, Any]:
    return _refused(row["image_id"], bad, _STAGES.get(bad.reason, "decode"))


def _refused(image_id: str, bad: BadImage, stage: str) -> dict[str, Any]:
    return {"image_id": image_id, "stage": stage, "reason": bad.reason, "detail": bad.detail[:500]}


def _found(numbered: list[str]) -> int:
    """How many faces were found by the numbers of those that are in the books: from 0 up in each photo."""
    most: dict[str, int] = {}
    for image_id in numbered:
        photo, _, number = image_id.rpartition("#")
        most[photo] = max(most.get(photo, 0), int(number) + 1)
    return sum(most.values())


@functools.lru_cache(maxsize=2)
def _detector(config: PrepareConfig, network: bytes | None) -> FaceDetector | None:
    """Kept between the parts that one worker process does."""
    return make_detector(config, network)
