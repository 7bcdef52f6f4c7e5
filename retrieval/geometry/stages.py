"""What the stages of a reconstruction leave on storage: features, pairs to check, links; and photos left out."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval.artifacts.collection import REJECTED_SCHEMA
from retrieval.artifacts.folder import Folder, part_name
from retrieval.geometry.features import Features
from retrieval.images.pixels import BadImage

_FEATURES = pa.schema(
    [("image_id", pa.string()), ("width", pa.int32()), ("height", pa.int32()), ("num", pa.int32())]
    + [(name, pa.binary()) for name in ("keypoints", "descriptors", "colours")]
    + [("row", pa.int32())]  # of the photo in the collection's part
)


LINKS = pa.schema([("a", pa.int32()), ("b", pa.int32()), ("num_inliers", pa.int32()), ("matches", pa.binary())])


def features_table(image_ids: Sequence[str], found: Sequence[Features], places: Sequence[int]) -> pa.Table:
    """Features of photos as `features_of_part` reads them. Args: places: their rows in the collection's part."""
    rows = [
        {"image_id": image_id, "width": f.width, "height": f.height, "num": len(f.keypoints), "row": row}
        | {name: getattr(f, name).tobytes() for name in ("keypoints", "descriptors", "colours")}
        for image_id, f, row in zip(image_ids, found, places, strict=True)
    ]
    return pa.Table.from_pylist(rows, _FEATURES)


def features_of_row(row: Mapping[str, Any]) -> Features:
    """A photo's features as they were; those of a learned extractor have two bytes a number, those of SIFT one."""
    one_byte = len(row["descriptors"]) == row["num"] * 128
    return Features(
        keypoints=np.frombuffer(row["keypoints"], np.float32).reshape(-1, 4),
        descriptors=np.frombuffer(row["descriptors"], np.uint8 if one_byte else np.float16).reshape(-1, 128),
        colours=np.frombuffer(row["colours"], np.uint8).reshape(-1, 3),
        width=row["width"],
        height=row["height"],
    )


@functools.lru_cache(maxsize=6)
def features_of_part(out: Folder, part: int) -> dict[str, Features]:
    """image_id -> features of one part, kept between calls: blocks of pairs read few parts each."""
    rows = out.read_table(f"features/{part_name(part)}").to_pylist()
    return {row["image_id"]: features_of_row(row) for row in rows}


def pairs_name(round_: int) -> str:
    """Of the pairs to check: 0 those by words, 1 and on those that follow links."""
    return f"pairs/round-{round_}.parquet"


def links_of_rounds(out: Folder, rounds: int, columns: list[str] | None = None) -> pa.Table:
    """Links of the first rounds, whose blocks are all done, in the order of their names."""
    folder, wanted = out / "links", tuple(f"round-{round_}/" for round_ in range(rounds))
    tables = [folder.read_table(name, columns=columns) for name in folder.list() if name.startswith(wanted)]
    schema = pa.schema([LINKS.field(name) for name in columns or LINKS.names])
    return pa.concat_tables(tables) if tables else schema.empty_table()


def write_left_out(out: Folder, stage: str, number: int, left: Mapping[str, BadImage]) -> None:
    """Photos that a part of a stage is done without, by image_id, and why: rejected/<stage>-N.parquet, if any."""
    rows = [
        {"image_id": image_id, "stage": stage, "reason": bad.reason, "detail": bad.detail}
        for image_id, bad in sorted(left.items())
    ]
    if rows:
        out.write_table(f"rejected/{stage}-{number:05d}.parquet", pa.Table.from_pylist(rows, REJECTED_SCHEMA), about={})


def left_out_of(out: Folder, stage: str, number: int) -> dict[str, BadImage]:
    """What `write_left_out` wrote of one part."""
    name = f"rejected/{stage}-{number:05d}.parquet"
    rows = out.read_table(name).to_pylist() if out.exists(name) else []
    return {row["image_id"]: BadImage(row["reason"], row["detail"]) for row in rows}


def left_out(out: Folder) -> dict[str, str]:
    """image_id -> reason, of all stages."""
    folder = out / "rejected"
    rows = [row for name in folder.list() for row in folder.read_table(name).to_pylist()]
    return {row["image_id"]: row["reason"] for row in rows}
