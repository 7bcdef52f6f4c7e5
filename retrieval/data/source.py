"""A listed source: its photographs, what is known of each, and what was odd. The readers of each layout fill it.

Nothing here opens a photograph.
"""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow.fs as pafs

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.storage.address import local_path, open_address, parse, parse_photo
from retrieval.images.settings import Box

# Formats that `pixels.decode` cannot read are taken too: they end in the rejected table, where their owner sees them.
PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}
    | {".heic", ".heif", ".hif", ".avif", ".jp2"}
)

# What cameras write beside JPEGs, and nothing here can read: counted and said, since their owner counts them as photos.
RAW_SUFFIXES = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw"}
    | {".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)

MAX_NOTES = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Photo:
    """One photograph as the source knows it."""

    image_id: str
    """Stable name: its path relative to the source, with forward slashes."""
    uri: str
    """Where its bytes are: relative to the source's root, or absolute (a manifest may name photos elsewhere)."""
    size: int
    """Bytes on storage; -1 where a list names the photo and it is not there."""
    label: str | None = None
    split: str | None = None
    attributes: tuple[int, ...] | None = None
    """-1/1 each, in the order of ATTRIBUTES."""
    box: Box | None = None
    """The source's face box, pixels of the upright photo."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceReport:
    """What a source said about itself, and what in it was missing or odd. Becomes `source.json`."""

    layout: str
    guessed: bool
    """The layout was told by what is there, nobody asked for it."""
    folders: int
    """Folders that hold photos."""
    photos: int
    repeated: int
    """Rows of a list or table that name a photo for a second time; the first row counts."""
    missing: int
    """Named by a list and not on storage; they go to the rejected table with the reason `missing`."""
    labels: int
    unlabelled: int
    without_attributes: int
    without_box: int
    ignored: dict[str, int]
    """Files that are not photographs: suffix, or 'hidden', -> count."""
    notes: tuple[str, ...]
    """Odd things found, one sentence each."""


def told(report: SourceReport) -> list[str]:
    """What a source was taken for, in a line or two each: to be read before any work is put into it."""
    how = f"layout {report.layout}" + (", told by what is there" if report.guessed else "")
    labels = _many(report.labels, "label") if report.labels else "no labels"
    if report.labels and report.unlabelled:
        labels += f", {_many(report.unlabelled, 'photo')} without one"
    lines = [f"{_many(report.photos, 'photo')} in {_many(report.folders, 'folder')} ({how}), {labels}"]
    if report.guessed and report.layout == "folder" and report.folders > 1:
        lines.append("folders are not taken for people or places; if each is one, say --layout lfw")
    if report.guessed and report.layout == "lfw":
        lines.append(
            "photos are named after their folders, so each folder is taken for one person or place; else say --layout "
            "folder"
        )
    if report.missing:
        lines.append(f"{report.missing:,} photos are named and not there")
    for kind, counts in (
        (
            "camera RAW, which cannot be read: convert them to JPEG",
            {s: n for s, n in report.ignored.items() if s in RAW_SUFFIXES},
        ),
        ("not taken for photos", {s: n for s, n in report.ignored.items() if s not in RAW_SUFFIXES}),
    ):
        if counts:
            lines.append(f"{kind}: {', '.join(f'{num:,} {suffix}' for suffix, num in sorted(counts.items()))}")
    return lines


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


@dataclass(slots=True)
class Listing:
    """What is noticed while a source is read."""

    repeated: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def add(self, other: Listing) -> None:
        """What was noticed of a part of the source."""
        self.repeated += other.repeated
        self.ignored += other.ignored
        self.notes += other.notes


def open_uri(root: Folder, uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system and path of a photo's `uri`, which is relative to `root` or absolute.

    An absolute one in a store of the same kind as the root's has the root's options (endpoint, region) if none itself.
    """
    path = local_path(uri) if "://" in uri else uri
    if path is None:
        same = uri.partition("://")[0] == root.uri.partition("://")[0]
        address = parse_photo(uri, parse(root.uri).options if same else ())
        return open_address(address), address.key
    if path.startswith("/"):
        return pafs.LocalFileSystem(), path
    return root.fs, root.file(path)


def walk(root: Folder) -> Iterator[tuple[str, int]]:
    """All files below a folder, in no order: relative path and bytes; -1 for a link to nothing.

    On a local disk links are followed, but no folder is entered twice, so a link upwards ends; pyarrow's own recursive
    listing would go round 40 times, leave dead links out and stop at a name that is not UTF-8.
    """
    if root.is_local:
        return _walk_local(root.path, "", set())
    return iter(root.list().items())


def _walk_local(folder: str, prefix: str, entered: set[tuple[int, int]]) -> Iterator[tuple[str, int]]:
    here = os.stat(folder)
    if (here.st_dev, here.st_ino) in entered:
        return
    entered.add((here.st_dev, here.st_ino))
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                folders.append((entry.name, entry.path))
            else:
                dead = entry.is_symlink() and not entry.is_file()
                yield prefix + entry.name, -1 if dead else entry.stat().st_size
    for name, path in sorted(folders):  # of two links to one folder the first is taken, on any disk
        yield from _walk_local(path, f"{prefix}{name}/", entered)


def is_photo(path: str) -> bool:
    """Whether a path names a photograph, by its suffix."""
    return posixpath.splitext(path)[1].lower() in PHOTO_SUFFIXES


def only(files: Iterable[str], suffix: str) -> bool:
    """Whether there are files of this kind, and no photographs."""
    there = False
    for path in files:
        if is_photo(path):
            return False
        there = there or path.endswith(suffix)
    return there


def photo_files(files: Iterable[tuple[str, int]], found: Listing) -> Iterator[tuple[str, int]]:
    """Those files that are photographs by their names; the others are counted."""
    for path, size in files:
        if path.startswith((".", "__MACOSX/")) or "/." in path:
            found.ignored["hidden"] += 1
            continue
        suffix = posixpath.splitext(path)[1].lower()
        if suffix not in PHOTO_SUFFIXES:
            found.ignored[suffix if suffix.isprintable() and suffix else "no suffix"] += 1
        elif not is_utf8(path):
            found.ignored["name is not UTF-8"] += 1
        else:
            yield path, size


def is_utf8(path: str) -> bool:
    """Whether a path of a disk is text."""
    if path.isascii():
        return True
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
