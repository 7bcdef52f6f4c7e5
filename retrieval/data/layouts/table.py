"""A source that is a table: CSV, TSV or Parquet with a row for each photo."""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.fs as pafs
from pyarrow import csv

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.storage.address import local_path, parse_photo
from retrieval.artifacts.storage.patience import patiently
from retrieval.data.layouts.celeba import ATTRIBUTES
from retrieval.data.source import Listing, Photo, open_uri
from retrieval.images.settings import Box

_BOX_COLUMNS = ("x1", "y1", "x2", "y2")

_AT_ONCE = 1 << 14  # rows

MANIFEST_NAMES = ("manifest.csv", "manifest.parquet")


def fits(files: Mapping[str, int]) -> bool:
    """Whether a folder holds a table under one of the names that are looked for."""
    return any(name in files for name in MANIFEST_NAMES)


def read(root: Folder, files: Mapping[str, int], found: Listing) -> Iterator[Photo]:
    """The photos of the table that a folder holds. Raises: ValueError if it holds none, or as `read_file`."""
    name = next((name for name in MANIFEST_NAMES if name in files), None)
    if name is None:
        raise ValueError(f"{root} holds no {' or '.join(MANIFEST_NAMES)}. Name the table itself as the source.")
    yield from read_file(root, name, found)


def read_file(root: Folder, name: str, found: Listing) -> Iterator[Photo]:
    """The photos of a table below `root`, a row a photo, whose paths are relative to `root` or absolute.

    Raises: ValueError if it is no table, or has no column `path`.
    """
    names, batches = _open_table(root, name)
    if "path" not in names:
        raise ValueError(f"{name} has no column 'path', only: {', '.join(names)}. Rename one of them.")
    known = {"image_id", "path", "label", "split", *_BOX_COLUMNS, *ATTRIBUTES}
    if others := [column for column in names if column not in known]:
        found.notes.append(f"{name} has columns that are not used: {', '.join(others)[:200]}.")
    for batch in batches([column for column in names if column in known]):
        yield from _photos(root, batch, found)


def _photos(root: Folder, batch: pa.RecordBatch, found: Listing) -> Iterator[Photo]:
    columns = dict(zip(batch.schema.names, (column.to_pylist() for column in batch.columns), strict=True))
    uris = [_text(value) for value in columns["path"]]
    sizes = _sizes(root, uris)
    has_attributes, has_box = columns.keys() >= set(ATTRIBUTES), columns.keys() >= set(_BOX_COLUMNS)
    for row, uri in enumerate(uris):
        if uri is None:
            found.ignored["rows without a path"] += 1
            continue
        values = {column: column_values[row] for column, column_values in columns.items()}
        yield Photo(
            image_id=_text(values.get("image_id")) or image_id_of(root, uri),
            uri=uri,
            size=sizes[row],
            label=_text(values.get("label")),
            split=_text(values.get("split")),
            attributes=_attributes(values) if has_attributes else None,
            box=_box(values) if has_box else None,
        )


def _open_table(root: Folder, name: str) -> tuple[list[str], Callable[[list[str]], Iterator[pa.RecordBatch]]]:
    """The names of its columns, and what reads some of these. Of Parquet a row group is held, of text all of it: what a
    column holds is told by all of its rows."""
    try:
        if name.endswith(".parquet"):
            return root.columns(name), lambda columns: root.read_batches(name, columns)
        text = dict.fromkeys(("path", "image_id", "label", "split"), pa.string())  # so that a label 007 stays as it is
        options = csv.ConvertOptions(column_types=text, strings_can_be_null=True, null_values=[""])
        delimiter = "\t" if name.endswith(".tsv") else ","
        parse = csv.ParseOptions(delimiter=delimiter)
        content = pa.BufferReader(root.read_bytes(name))
        table = csv.read_csv(content, parse_options=parse, convert_options=options)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{root}/{name} cannot be read as a table: {error}. Expected CSV, TSV or Parquet.") from error
    return table.column_names, lambda columns: iter(table.select(columns).to_batches(max_chunksize=_AT_ONCE))


def image_id_of(root: Folder, uri: str) -> str:
    """A name that never depends on where the source lies: the path below it, or the path without scheme and root."""
    path = uri
    if "://" in uri:
        path = local_path(uri) or parse_photo(uri).key
    if path != uri or path.startswith("/"):
        path = path.removeprefix(f"{root.path.rstrip('/')}/")
    path = posixpath.normpath(path)
    return "/".join(name for name in path.split("/") if name not in ("", ".", ".."))


def _sizes(root: Folder, uris: Sequence[str | None]) -> list[int]:
    """Bytes of each photo, -1 where there is none; asked for in one call per file system: each bucket has its own."""
    places: dict[tuple[str, int], tuple[pafs.FileSystem, list[int], list[str]]] = {}
    own, below = root.fs, root.path
    for row, uri in enumerate(uris):
        if uri is not None:
            is_relative = "://" not in uri and not uri.startswith("/")
            fs, path = (own, f"{below}/{uri}") if is_relative else open_uri(root, uri)
            key = (fs.type_name, 0 if fs.type_name == "local" else id(fs))
            group = places.setdefault(key, (fs, [], []))
            group[1].append(row)
            group[2].append(path)
    sizes = [-1] * len(uris)
    for fs, rows, paths in places.values():
        infos = patiently(functools.partial(fs.get_file_info, paths), f"asking for {len(paths)} photos of {root}")
        for row, info in zip(rows, infos, strict=True):
            sizes[row] = int(info.size) if info.type == pafs.FileType.File else -1
    return sizes


def _text(value: object) -> str | None:
    return str(value).strip() or None if value is not None else None


def _attributes(values: Mapping[str, object]) -> tuple[int, ...] | None:
    """All 40, or None: half a vector cannot be compared."""
    found = [_text(values.get(name)) for name in ATTRIBUTES]
    if any(value not in ("1", "-1", "0", "True", "False") for value in found):
        return None
    return tuple(1 if value in ("1", "True") else -1 for value in found)


def _box(values: Mapping[str, object]) -> Box | None:
    edges = [values.get(name) for name in _BOX_COLUMNS]
    try:
        x1, y1, x2, y2 = (float(str(edge)) for edge in edges if edge is not None)
    except ValueError:  # not four, or not numbers
        return None
    return (x1, y1, x2, y2)
