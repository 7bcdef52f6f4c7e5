"""A source that is tars of photos, named as WebDataset names them: NAME.jpg beside NAME.json, NAME.cls or NAME.txt.

A photo's label is the key `label` of its .json; else what its .cls says; else its .txt, if that is one line. Its
image_id is the path of the tar with the name in the tar behind it.

Nothing is unpacked. Of a tar only its headers are read, and what is small and may say a label; later the bytes of a
photo, at the place that its uri names: tar://OFFSET/PATH OF THE TAR.
"""

from __future__ import annotations

import functools
import io
import json
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, cast

import pyarrow as pa

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.storage.patience import patiently
from retrieval.data.source import Listing, Photo, is_photo, only, photo_files

SCHEME = "tar://"

_LABELS = (".json", ".cls", ".txt")  # the first that says one counts
_MAX_LABEL = 1 << 16  # bytes; what is longer says no label
_AT_ONCE = 16  # tars whose headers are read at once, and whose photos are held
_DISK, _STORE = 1 << 12, 1 << 18  # bytes that are read at once: to ask a store costs more than the bytes


def fits(files: Mapping[str, int]) -> bool:
    """Whether a folder holds tars, and no photos beside them."""
    return only(files, ".tar")


def read(root: Folder, files: Mapping[str, int], found: Listing) -> Iterator[Photo]:
    """The photos in all tars below a folder. Raises: ValueError for a tar that is none, or is damaged."""
    names = []
    for path in files:
        if path.endswith(".tar"):
            names.append(path)
        elif any(photo_files([(path, 0)], found)):
            found.ignored["photos beside the tars"] += 1
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="read-headers") as pool:
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            for photos, noticed in pool.map(functools.partial(_index, root), some):
                found.add(noticed)
                yield from photos


def read_file(root: Folder, name: str, found: Listing) -> Iterator[Photo]:
    """The photos of one tar below `root`. Raises: as `read`."""
    photos, noticed = _index(root, name)
    found.add(noticed)
    yield from photos


def read_member(root: Folder, uri: str, size: int) -> bytes:
    """The bytes of a photo; fewer than `size` where its tar ends before. Raises: OSError."""
    offset, name = place(uri)
    with root.fs.open_input_file(root.file(name)) as stream:
        return stream.read_at(size, offset) if offset < stream.size() else b""


def read_members(root: Folder, photos: list[tuple[str, int]]) -> list[bytes]:
    """The same of some photos of one tar, uri and size of each, that lie one behind the other: read in one go."""
    places = [(place(uri)[0], size) for uri, size in photos]
    first, end = places[0][0], places[-1][0] + places[-1][1]
    data = memoryview(read_member(root, photos[0][0], end - first))
    return [bytes(data[offset - first : offset - first + size]) for offset, size in places]


def place(uri: str) -> tuple[int, str]:
    """Where a photo begins in its tar, and the tar's path. Raises: ValueError if this is no such uri."""
    offset, _, name = uri.removeprefix(SCHEME).partition("/")
    if not uri.startswith(SCHEME) or not offset.isdigit() or not name:
        raise ValueError(f"{uri} is no photo in a tar. Expected {SCHEME}OFFSET/PATH.")
    return int(offset), name


def _index(root: Folder, name: str) -> tuple[list[Photo], Listing]:
    return patiently(lambda: _index_once(root, name), f"reading the headers of {root / name}")


def _index_once(root: Folder, name: str) -> tuple[list[Photo], Listing]:
    found, photos, labels = Listing(), dict[str, tarfile.TarInfo](), dict[str, dict[str, str | None]]()
    with root.fs.open_input_file(root.file(name)) as stream:
        file = cast(BinaryIO, io.BufferedReader(_Raw(stream), _DISK if root.is_local else _STORE))
        for member in _members(file, stream.size(), name, found):
            path = member.name.removeprefix("./")
            suffix = posixpath.splitext(path)[1].lower()
            if suffix in _LABELS:
                if member.isreg() and member.size <= _MAX_LABEL:
                    file.seek(member.offset_data)
                    labels.setdefault(_key(path), {})[suffix] = _said(suffix, file.read(member.size))
            elif is_photo(path) and (path.startswith("/") or ".." in path.split("/")):
                found.ignored["name leads out of its tar"] += 1
                found.notes.append(f"{name} holds {path[:100]!r}, which leads out of it; it is not taken.")
            elif is_photo(path) and (not member.isreg() or member.issparse()):
                found.ignored["no plain file in its tar"] += 1
            elif path in photos:
                found.repeated += 1
                found.notes.append(f"{name} holds {path} twice; the first is taken.")
            elif not member.isdir() and any(photo_files([(path, member.size)], found)):
                photos[path] = member
    return [_photo(name, path, member, labels.get(_key(path), {})) for path, member in photos.items()], found


def _photo(tar: str, path: str, member: tarfile.TarInfo, labels: Mapping[str, str | None]) -> Photo:
    label = next((labels[suffix] for suffix in _LABELS if labels.get(suffix)), None)
    uri = f"{SCHEME}{member.offset_data}/{tar}"
    return Photo(image_id=f"{tar}/{path}", uri=uri, size=member.size, label=label)


def _key(path: str) -> str:
    """What the files of one sample have in common: all before the first dot of the name."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _said(suffix: str, content: bytes) -> str | None:
    """The label that a file beside a photo says, if it says one."""
    text = content.decode("utf-8-sig", errors="replace").strip()
    if suffix != ".json":
        return text if text and "\n" not in text else None
    try:
        told: Any = json.loads(text)
    except ValueError:
        return None
    label = told.get("label") if isinstance(told, dict) else None
    return str(label).strip() or None if isinstance(label, str | int) and not isinstance(label, bool) else None


def _members(file: BinaryIO, size: int, name: str, found: Listing) -> Iterator[tarfile.TarInfo]:
    """In the order of the tar. One that ends in the middle gives all that it holds, the last photo too, whose bytes
    will be missed at its turn.

    Raises: ValueError if it is no tar, or is damaged before its end: what comes behind would not be found.
    """
    end = 0
    try:
        tar = tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape")
        while (member := tar.next()) is not None:
            if member.size < 0 or member.offset < end:
                raise tarfile.ReadError("a member of less than no bytes")
            tar.members = []  # type: ignore[misc]  it would keep them all
            end = member.offset_data + member.size
            yield member
        end = tar.offset  # type: ignore[attr-defined]
        file.seek(end)
        if any(block := file.read(tarfile.BLOCKSIZE)) and len(block) == tarfile.BLOCKSIZE:
            raise tarfile.ReadError("bad header")
        cut = len(block) < tarfile.BLOCKSIZE and any(block)
    except tarfile.TarError as error:
        if not 0 < size < end:
            raise ValueError(
                f"{name} is no tar, or is damaged at byte {end} of {size} ({error}). Photos behind would be lost, so "
                f"nothing is taken of it. Fetch it again, unpack it first if it is compressed (gunzip), or take it out."
            ) from error
        cut = True
    if cut or size < end:
        found.notes.append(f"{name} ends in the middle of a file, at byte {size}: it was not copied whole.")


class _Raw(io.RawIOBase):
    """A file of `pyarrow.fs` as one of Python."""

    def __init__(self, stream: pa.NativeFile) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._stream.readinto(buffer)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()
