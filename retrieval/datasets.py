"""What photographs a source holds and what it says about them, whatever its layout.

    celeba    CelebA's published files: img_align_celeba/ (or img_celeba/) and its lists, in one folder or in
              Anno/, Eval/ and Img/ below it. Any of the lists may be missing or cover only a part of the photos.
    lfw       one folder a person: the folder's name is the label.
    folder    any tree of photos, without labels.
    manifest  a CSV or Parquet table with a column `path`, and optionally `image_id`, `label`, `split`, a box
              `x1, y1, x2, y2` and columns named as CelebA's attributes.

`auto` takes manifest for a file, or for a folder that holds `manifest.csv` or `manifest.parquet`; celeba for a folder
with CelebA's identity or attribute list; lfw where at least two sub-folders hold photos, all one level deep; and folder
otherwise.

Hidden files (a part of the path begins with a dot) and files that are no photographs by their names are not taken; the
report counts them. Nothing here opens a photograph.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.fs as pafs
from pyarrow import csv

from retrieval import celeba
from retrieval.artifacts import Folder
from retrieval.celeba import ATTRIBUTES
from retrieval.listing import MAX_NOTES, Box, Listing, Photo, Source, SourceReport, open_uri, photo_files, walk

__all__ = ["ATTRIBUTES", "Layout", "Photo", "Source", "SourceReport", "list_source", "open_uri"]

Layout = Literal["auto", "celeba", "lfw", "folder", "manifest"]
_BOX_COLUMNS = ("x1", "y1", "x2", "y2")
MANIFEST_NAMES = ("manifest.csv", "manifest.parquet")


def list_source(where: str | Folder, layout: Layout = "auto") -> Source:
    """List a source: a local folder or file, or a URI that `pyarrow.fs` opens.

    Raises: ValueError if there is nothing there, no photo in it, or it does not fit the layout asked for.
    """
    root = Folder.of(where)
    kind = root.fs.get_file_info(root.path).type
    if kind == pafs.FileType.NotFound:
        raise ValueError(f"There is nothing at {root}. Name a folder of photos, or a CSV or Parquet manifest.")
    found, table, files = Listing(), "", {}
    if kind == pafs.FileType.File:
        if layout not in ("auto", "manifest"):
            raise ValueError(
                f"{root} is a file, and layout '{layout}' needs a folder. Use layout 'manifest' for a table."
            )
        uri, _, table = root.uri.rpartition("/")
        root, layout = Folder(uri or "/"), "manifest"
    else:
        files = walk(root)
        layout = _detect(files) if layout == "auto" else layout
    if layout == "celeba":
        celeba.read_celeba(root, files, found)
    elif layout == "manifest":
        _read_manifest(root, table or _manifest_in(root, files), found)
    else:
        _read_tree(photo_files(files, found), found, labelled=layout == "lfw")
    return _finished(root, layout, found)


def _detect(files: Mapping[str, int]) -> Layout:
    if any(name in files for name in MANIFEST_NAMES):
        return "manifest"
    if celeba.is_celeba(files):
        return "celeba"
    folders = {posixpath.dirname(path) for path in photo_files(files, Listing())}
    return "lfw" if len(folders) >= 2 and all(folder and "/" not in folder for folder in folders) else "folder"


def _read_tree(photos: Mapping[str, int], found: Listing, *, labelled: bool) -> None:
    for path, size in photos.items():
        folder = posixpath.basename(posixpath.dirname(path))
        found.add(Photo(image_id=path, uri=path, size=size, label=(folder or None) if labelled else None))


def _manifest_in(root: Folder, files: Mapping[str, int]) -> str:
    for name in MANIFEST_NAMES:
        if name in files:
            return name
    raise ValueError(f"{root} holds no {' or '.join(MANIFEST_NAMES)}. Name the table itself as the source.")


def _read_manifest(root: Folder, name: str, found: Listing) -> None:
    table = _read_table(root, name)
    if "path" not in table.column_names:
        raise ValueError(f"{name} has no column 'path', only: {', '.join(table.column_names)}. Rename one of them.")
    known = {"image_id", "path", "label", "split", *_BOX_COLUMNS, *ATTRIBUTES}
    if others := [column for column in table.column_names if column not in known]:
        found.notes.append(f"{name} has columns that are not used: {', '.join(others)[:200]}.")
    columns = {column: table.column(column).to_pylist() for column in table.column_names if column in known}
    uris = [_text(value) for value in columns["path"]]
    sizes = _sizes(root, uris)
    for row, uri in enumerate(uris):
        if uri is None:
            found.ignored["rows without a path"] += 1
            continue
        values = {column: column_values[row] for column, column_values in columns.items()}
        found.add(
            Photo(
                image_id=_text(values.get("image_id")) or image_id_of(root, uri),
                uri=uri,
                size=sizes[row],
                label=_text(values.get("label")),
                split=_text(values.get("split")),
                attributes=_attributes(values),
                box=_box(values),
            )
        )


def _read_table(root: Folder, name: str) -> pa.Table:
    try:
        if name.endswith(".parquet"):
            return root.read_table(name)
        text = dict.fromkeys(("path", "image_id", "label", "split"), pa.string())  # so that a label 007 stays as it is
        options = csv.ConvertOptions(column_types=text, strings_can_be_null=True, null_values=[""])
        delimiter = "\t" if name.endswith(".tsv") else ","
        with root.fs.open_input_stream(root.file(name)) as stream:
            parse = csv.ParseOptions(delimiter=delimiter)
            return csv.read_csv(stream, parse_options=parse, convert_options=options)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{root}/{name} cannot be read as a table: {error}. Expected CSV, TSV or Parquet.") from error


def image_id_of(root: Folder, uri: str) -> str:
    """A name that never depends on where the source lies: the path below it, or the path without scheme and root."""
    path = uri.removeprefix(root.uri + "/")
    path = posixpath.normpath(path.partition("://")[2] if "://" in path else path)
    return "/".join(name for name in path.split("/") if name not in ("", ".", ".."))


def _sizes(root: Folder, uris: Sequence[str | None]) -> list[int]:
    """Bytes of each photo, -1 where there is none; asked for in one call per file system."""
    places: dict[str, tuple[pafs.FileSystem, list[int], list[str]]] = {}
    for row, uri in enumerate(uris):
        if uri is not None:
            fs, path = open_uri(root, uri)
            group = places.setdefault(fs.type_name, (fs, [], []))
            group[1].append(row)
            group[2].append(path)
    sizes = [-1] * len(uris)
    for fs, rows, paths in places.values():
        for row, info in zip(rows, fs.get_file_info(paths), strict=True):
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


def _finished(root: Folder, layout: str, found: Listing) -> Source:
    photos = [found.photos[name] for name in sorted(found.photos)]
    missing = sum(photo.size < 0 for photo in photos)
    if not photos or missing == len(photos):
        named = f"{missing} photos are named and none of them exists" if missing else "there is no photograph in it"
        others = ", ".join(f"{count} {kind}" for kind, count in sorted(found.ignored.items())) or "nothing else either"
        raise ValueError(
            f"No photos at {root} (layout '{layout}'): {named} ({others}). "
            f"Expected files named .jpg, .png, .webp or the like. Check the path and --layout."
        )
    report = SourceReport(
        layout=layout,
        photos=len(photos),
        repeated=found.repeated,
        missing=missing,
        labels=len({photo.label for photo in photos} - {None}),
        unlabelled=sum(photo.label is None for photo in photos),
        without_attributes=sum(photo.attributes is None for photo in photos),
        without_box=sum(photo.box is None for photo in photos),
        ignored=dict(sorted(found.ignored.items())),
        notes=tuple(found.notes[:MAX_NOTES]),
    )
    return Source(root=root, photos=photos, report=report)
