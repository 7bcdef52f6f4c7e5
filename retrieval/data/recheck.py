"""Stored photos of a collection, decoded once more and not kept: which of them ends, or fails, what reads them?"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from retrieval.artifacts.collection import read_catalog
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.progress import Progress, counted, silent
from retrieval.images.native import BadImage
from retrieval.images.pixels import decode_whole, stored_size


def try_stored(
    collection: Folder,
    part: int,
    only: Sequence[int],
    splits: Sequence[str] = (),
    progress: Progress = silent,
    **_: object,
) -> list[str]:
    """Decode these photos of a part, by their positions in it, and write nothing. Returns the image_ids of all.

    Args: splits: only these photos of the part are there, and are counted; none: all.

    Raises: BadImage for one that is no JPEG.
    """
    photos = _photos(collection, part, splits)
    _decode(photos["jpeg"].take(pa.array(list(only), pa.int64())).to_pylist(), progress)
    return photos["image_id"].to_pylist()


def decode_part(
    collection: Folder,
    part: int,
    splits: Sequence[str] = (),
    progress: Progress = silent,
    without: Mapping[int, BadImage] = MappingProxyType({}),
) -> dict[str, Any]:
    """Decode a part's photos, but for those of `without`, by position.

    Raises: BadImage for one that is no JPEG.

    Returns: part; taken; broken, how many are left out; left: their image_id, reason and detail.
    """
    photos = _photos(collection, part, splits)
    rows = [row for row in range(len(photos)) if row not in without]
    _decode(photos["jpeg"].take(pa.array(rows, pa.int64())).to_pylist(), progress)
    left = [
        {"image_id": photos["image_id"][row].as_py(), "reason": bad.reason, "detail": bad.detail}
        for row, bad in sorted(without.items())
    ]
    return {"part": part, "taken": len(photos), "broken": len(left), "left": left}


def _decode(jpegs: Sequence[bytes], progress: Progress) -> None:
    progress("photos", 0, len(jpegs))  # from now on it is the next one
    for jpeg in counted(jpegs, "photos", progress):
        try:
            stored_size(jpeg)
            decode_whole(jpeg)
        except ValueError as error:  # it is this photo's, which whoever looks for it must see
            raise BadImage("unreadable", str(error)) from error


def _photos(collection: Folder, part: int, splits: Sequence[str]) -> pa.Table:
    photos = collection.read_table(f"images/{part_name(part)}", columns=["image_id", "jpeg"])
    if not splits:
        return photos
    listed = _listed(collection, tuple(splits))
    return photos.take(listed.filter(pc.equal(listed["part"], part)).sort_by("row")["row"])


@functools.lru_cache(maxsize=1)
def _listed(collection: Folder, splits: tuple[str, ...]) -> pa.Table:
    """Read once a worker, which does many parts."""
    return read_catalog(collection, splits, ("part", "row"))
