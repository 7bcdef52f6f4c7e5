"""A source that is Parquet with the photos in it, as Hugging Face keeps sets of images: a row a photo.

The photos are in the column `image`, or in the only one that can hold any: bytes, or a struct with the bytes in its
field `bytes`. `label` and `split` are taken if they are there; where the file says what a label's number means, the
name is the label. A photo's image_id is the path of the file with the number of the row behind it.

Rows are listed without their photos. Later the row group that a photo lies in is read, the photos alone of it, by the
uri parquet://GROUP/ROW/PATH OF THE FILE, rows counted in their group.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.storage.failures import kind_of
from retrieval.artifacts.storage.patience import patiently
from retrieval.data.source import Listing, Photo, only, photo_files
from retrieval.images.native import BadImage

SCHEME = "parquet://"

_MAX_GROUP = 512 << 20
"""Bytes of the photos of one row group: it is read, and so held, whole."""


def fits(files: Mapping[str, int]) -> bool:
    """Whether a folder holds Parquet files, and no photos beside them."""
    return only(files, ".parquet")


def holds_photos(root: Folder, name: str) -> bool:
    """Whether a file is a table with photos in it, not with their paths."""
    try:
        schema = _schema(root, name)
    except pa.ArrowInvalid:
        return False
    return "path" not in schema.names and bool(_candidates(schema))


def read(root: Folder, files: Mapping[str, int], found: Listing) -> Iterator[Photo]:
    """The photos of all Parquet files below a folder. Raises: ValueError as `read_file`."""
    for path in files:
        if path.endswith(".parquet"):
            yield from read_file(root, path, found)
        elif any(photo_files([(path, 0)], found)):
            found.ignored["photos beside the tables"] += 1


def read_file(root: Folder, name: str, found: Listing) -> Iterator[Photo]:
    """The photos of one file below `root`.

    Raises: ValueError if it is no Parquet, has no column of photos or several, or row groups that are too large.
    """
    try:
        schema = _schema(root, name)
    except (pa.ArrowInvalid, OSError) as error:
        if kind_of(error) is not None:
            raise
        raise ValueError(
            f"{root}/{name} cannot be read as Parquet: {error}. Fetch it again, or take it out."
        ) from error
    column = _column(schema, name)
    names = _names_of_labels(schema)
    known = [each for each in ("label", "split") if each in schema.names]
    if others := sorted(set(schema.names) - {*known, column.partition(".")[0]}):
        found.notes.append(f"{name} has columns that are not used: {', '.join(others)[:200]}.")
    footer = patiently(lambda: pq.read_metadata(root.file(name), filesystem=root.fs), f"reading {root / name}")
    sizes, row = [_bytes_of(footer.row_group(group), column) for group in range(footer.num_row_groups)], 0
    if sizes and max(size for _, size in sizes) > _MAX_GROUP:
        raise ValueError(
            f"{name} has a row group with {max(size for _, size in sizes) >> 20} MiB of photos, and a group is read "
            f"whole: at most {_MAX_GROUP >> 20} MiB. Write it again with smaller ones, 100 rows say "
            f"(pyarrow: row_group_size=100; datasets: writer_batch_size=100)."
        )
    for group, values in enumerate(_groups(root, name, known, footer.num_row_groups)):
        num = footer.row_group(group).num_rows
        share = math.ceil(sizes[group][0] / max(1, num))
        for at in range(num):
            told = {each: _text(values[each][at]) for each in known}
            if names and told.get("label") is not None:
                told["label"] = names.get(told["label"] or "", told["label"])
            yield Photo(
                image_id=f"{name}/{row:09d}",
                uri=f"{SCHEME}{group}/{at}/{name}",
                size=share,
                label=told.get("label"),
                split=told.get("split"),
            )
            row += 1


def read_rows(root: Folder, uris: list[str]) -> list[bytes]:
    """The photos of some rows of one row group, in their order; empty where a row holds none.

    Raises: BadImage if the group is damaged; OSError if storage fails or the file is gone.
    """
    places = [place(uri) for uri in uris]
    group, _, name = places[0]
    try:
        with pq.ParquetFile(root.file(name), filesystem=root.fs, pre_buffer=False) as file:
            path = _column(file.schema_arrow, name)
            column: Any = file.read_row_group(group, columns=[path])[path.partition(".")[0]]
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError) or kind_of(error) is not None:
            raise
        raise BadImage("not-readable", f"row group {group} of {name}: {type(error).__name__}: {error}") from error
    values = (column[row].as_py() if row < len(column) else None for _, row, _ in places)
    return [(value["bytes"] if isinstance(value, dict) else value) or b"" for value in values]


def place(uri: str) -> tuple[int, int, str]:
    """The row group of a photo, its row in it, and the path of the file. Raises: ValueError if this is no such uri."""
    group, _, rest = uri.removeprefix(SCHEME).partition("/")
    row, _, name = rest.partition("/")
    if not uri.startswith(SCHEME) or not group.isdigit() or not row.isdigit() or not name:
        raise ValueError(f"{uri} is no photo in a table. Expected {SCHEME}GROUP/ROW/PATH.")
    return int(group), int(row), name


def _schema(root: Folder, name: str) -> pa.Schema:
    return patiently(lambda: pq.read_schema(root.file(name), filesystem=root.fs), f"reading {root / name}")


def _candidates(schema: pa.Schema) -> list[str]:
    """Paths of columns that can hold photos."""
    found = []
    for field in schema:
        if pa.types.is_struct(field.type):
            inside = {part.name: part.type for part in field.type}
            if "bytes" in inside and _is_bytes(inside["bytes"]):
                found.append(f"{field.name}.bytes")
        elif _is_bytes(field.type):
            found.append(field.name)
    return found


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _column(schema: pa.Schema, name: str) -> str:
    found = _candidates(schema)
    named = [path for path in found if path.partition(".")[0] == "image"]
    if not named and len(found) != 1:
        which = f"several columns with bytes ({', '.join(found)})" if found else "no column with the bytes of photos"
        raise ValueError(
            f"{name} has {which}; its columns: {', '.join(schema.names)[:200]}. Expected one called image, of bytes or "
            f"with the fields bytes and path; a table of photos' paths is named as the source itself (layout manifest)."
        )
    return named[0] if named else found[0]


def _names_of_labels(schema: pa.Schema) -> dict[str, str]:
    """Number -> name, where the file says so as `datasets` writes it."""
    try:
        told = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return {}
    return {str(number): str(name) for number, name in enumerate(told)} if isinstance(told, list) else {}


def _bytes_of(group: pq.RowGroupMetaData, column: str) -> tuple[int, int]:
    """Of the photos of a row group, as they lie in the file and as they are read."""
    leaves = (group.column(number) for number in range(group.num_columns))
    leaf = next(leaf for leaf in leaves if leaf.path_in_schema == column)
    return leaf.total_compressed_size, leaf.total_uncompressed_size


def _groups(root: Folder, name: str, columns: list[str], num_groups: int) -> Iterator[dict[str, list[Any]]]:
    if not columns:
        yield from ({} for _ in range(num_groups))
        return
    for table in root.read_groups(name, columns):
        yield {each: table[each].to_pylist() for each in columns}


def _text(value: object) -> str | None:
    return str(value).strip() or None if isinstance(value, str | int) else None
