"""What the stages of a reconstruction leave on storage: features, pairs to check, links; and photos left out.

Tables of all photos, pairs or links are read by the rows that a task works on: what it reads does not grow with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.artifacts.collection import REJECTED_SCHEMA
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.storage.patience import patiently
from retrieval.geometry.features import Features
from retrieval.images.pixels import BadImage

_FEATURES = pa.schema(
    [("image_id", pa.string()), ("width", pa.int32()), ("height", pa.int32()), ("num", pa.int32())]
    + [(name, pa.binary()) for name in ("keypoints", "descriptors", "colours")]
    + [("row", pa.int32())]  # of the photo in the collection's part
)


PAIRS = pa.schema([(name, pa.int32()) for name in ("a", "b", "part_a", "row_a", "part_b", "row_b")])
"""Two photos, as rows of photos.parquet, and where the collection has them: nothing else is read to check them."""

_KNOWN = pa.schema([(name, pa.int32()) for name in ("a", "b", "num_inliers", "round", "block", "at")])
_OF_LINKS = re.compile(r"round-(\d+)/block-(\d+)")

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


def features_of_part(out: Folder, part: int) -> Iterator[tuple[str, Features]]:
    """image_id and features of each photo of one part, in the order of the file."""
    table = out.read_table(f"features/{part_name(part)}")
    for at in range(len(table)):
        (row,) = table.slice(at, 1).to_pylist()
        yield row["image_id"], features_of_row(row)


def read_rows(folder: Folder, name: str, start: int, num: int) -> pa.Table:
    """Rows [start, start + num) of a table, as many of them as there are. Reads the row groups that hold them."""
    read = lambda: _read_rows(folder, name, start, start + num)  # noqa: E731
    return patiently(read, f"reading {folder / name}")


def _read_rows(folder: Folder, name: str, start: int, end: int) -> pa.Table:
    with folder.fs.open_input_file(folder.file(name)) as stream:
        reader = pq.ParquetFile(stream)
        begins = group_begins(reader.metadata)
        held = [at for at in range(len(begins) - 1) if begins[at] < end and start < begins[at + 1]]
        return reader.read_row_groups(held).slice(start - begins[held[0]] if held else 0, end - start)


def group_begins(footer: pq.FileMetaData) -> list[int]:
    """The first row of each row group of a Parquet file, and the number of all rows."""
    begins = [0]
    for group in range(footer.num_row_groups):
        begins.append(begins[-1] + footer.row_group(group).num_rows)
    return begins


def pairs_name(round_: int) -> str:
    """Of the pairs to check: 0 those by words, 1 and on those that follow links."""
    return f"pairs/round-{round_}.parquet"


def links_name(round_: int, block: int) -> str:
    """Of the links of a block of pairs."""
    return f"links/round-{round_}/block-{block:05d}.parquet"


def links_of_rounds(out: Folder, rounds: int) -> pa.Table:
    """Links of the first rounds, whose blocks are all done, in the order of their names.

    Their matches are left where they are: a row says in which `round`, `block`, and row of it, `at`.
    """
    tables = []
    for name in (out / "links").list():
        known = _OF_LINKS.match(name)
        if known and (round_ := int(known[1])) < rounds:
            own = (out / "links").read_table(name, columns=_KNOWN.names[:3])
            places = {"round": [round_] * len(own), "block": [int(known[2])] * len(own), "at": range(len(own))}
            tables.append(pa.table({**dict(zip(own.column_names, own.columns)), **places}, schema=_KNOWN))
    return pa.concat_tables(tables) if tables else _KNOWN.empty_table()


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
