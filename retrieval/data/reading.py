"""The bytes of photos: of one, and of the next ones while the present one is prepared.

What is read ahead is only ever a saving of time. A photo whose bytes did not come that way, for whatever reason, is
read at its turn, alone, and what goes wrong then is what is said of it: so retries, books and the search for a photo
that ends its worker are what they are without.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow.fs as pafs

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.storage.failures import is_of_one_file
from retrieval.data.layouts import image_table, webdataset
from retrieval.data.source import open_uri
from retrieval.images.native import BadImage

MAX_BYTES = 256 << 20
"""Larger files are not read: a worker holds one photo at a time, and no photograph is that large."""

_AHEAD = 64 << 20
"""Bytes of the photos that are read, or being read, before their turn."""

_STORE, _DISK = 16, 2
"""How many are read at once: an object store answers each late and many at once."""

_TOGETHER, _TOGETHER_BYTES = 16, 1 << 20
"""Of a disk so many small photos are read in one go: to hand each over would take longer than to read it."""

_SPAN, _GAP = 4 << 20, 1 << 16
"""Of a tar so many bytes are read in one go, with what lies between its photos."""


class Ahead:
    """Photos of a part, read in a few threads some time before they are asked for.

    Rows are as PLAN_SCHEMA; ask for them in their order.
    """

    def __init__(self, source: Folder, rows: Sequence[Mapping[str, Any]], leave_out: Iterable[int] = ()) -> None:
        """Args: leave_out: positions of rows that are not asked for."""
        self._source, self._rows = source, rows
        skipped = set(leave_out)
        local = source.is_local
        self._left = deque(_bundles(rows, [at for at in range(len(rows)) if at not in skipped], together=local))
        self._under_way: dict[int, tuple[Future[dict[int, bytes]], Sequence[int]]] = {}
        self._held, self._ready = 0, dict[int, bytes]()
        self._pool = ThreadPoolExecutor(_DISK if local else _STORE, thread_name_prefix="read-ahead")

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self._left.clear()
        self._pool.shutdown(cancel_futures=True)

    def read(self, at: int) -> bytes:
        """The bytes of a row's photo. Raises: as `read`."""
        self._begin()
        if at in self._under_way:
            future, bundle = self._under_way[at]
            self._ready = future.result()
            for each in bundle:
                del self._under_way[each]
            self._held -= _bytes_of(self._rows, bundle)
            self._begin()
        row = self._rows[at]
        data = self._ready.pop(at, None)
        return read(self._source, row["uri"], row["size"]) if data is None else data

    def _begin(self) -> None:
        while self._left and (not self._under_way or self._held + _bytes_of(self._rows, self._left[0]) <= _AHEAD):
            bundle = self._left.popleft()
            self._held += _bytes_of(self._rows, bundle)
            future = self._pool.submit(self._read, bundle)
            self._under_way |= dict.fromkeys(bundle, (future, bundle))

    def _read(self, bundle: Sequence[int]) -> dict[int, bytes]:
        photos = [(self._rows[at]["uri"], self._rows[at]["size"]) for at in bundle]
        with contextlib.suppress(Exception):  # as below
            if photos[0][0].startswith(webdataset.SCHEME):
                pairs = zip(bundle, webdataset.read_members(self._source, photos), strict=True)
                return {at: data for (at, data), (_, size) in zip(pairs, photos, strict=True) if len(data) == size}
            if photos[0][0].startswith(image_table.SCHEME):
                rows = image_table.read_rows(self._source, [uri for uri, _ in photos])
                return dict(zip(bundle, rows, strict=True))
        read_now = {}
        for at, (uri, size) in zip(bundle, photos, strict=True):
            with contextlib.suppress(Exception):  # said of the photo at its turn
                read_now[at] = read(self._source, uri, size)
        return read_now


def _bytes_of(rows: Sequence[Mapping[str, Any]], bundle: Sequence[int]) -> int:
    return sum(max(0, rows[at]["size"]) for at in bundle)


def _bundles(rows: Sequence[Mapping[str, Any]], wanted: Sequence[int], *, together: bool) -> Iterator[list[int]]:
    """Positions of photos that are read by one thread, one after another or in one go."""
    bundle: list[int] = []
    for at in wanted:
        if bundle and not _goes_with(rows, bundle, at, together=together):
            yield bundle
            bundle = []
        bundle.append(at)
    if bundle:
        yield bundle


def _goes_with(rows: Sequence[Mapping[str, Any]], bundle: Sequence[int], at: int, *, together: bool) -> bool:
    """Whether a photo is read with those of a bundle: of a row group all, of a tar what lies close, of files some."""
    before, uri = rows[bundle[-1]], rows[at]["uri"]
    if not 0 <= rows[at]["size"] <= MAX_BYTES or not 0 <= before["size"] <= MAX_BYTES:
        return False
    if uri.startswith(image_table.SCHEME) and before["uri"].startswith(image_table.SCHEME):
        (group, _, name), (other, _, there) = image_table.place(uri), image_table.place(before["uri"])
        return (group, name) == (other, there)
    if uri.startswith(webdataset.SCHEME) and before["uri"].startswith(webdataset.SCHEME):
        offset, name = webdataset.place(uri)
        end, there = webdataset.place(before["uri"])
        start, _ = webdataset.place(rows[bundle[0]]["uri"])
        gap = offset - end - before["size"]
        span = offset + rows[at]["size"] - start
        return name == there and 0 <= gap <= _GAP and span <= _SPAN
    if "://" in uri or "://" in before["uri"]:
        return False
    return together and len(bundle) < _TOGETHER and _bytes_of(rows, [*bundle, at]) <= _TOGETHER_BYTES


def read(source: Folder, uri: str, size: int) -> bytes:
    """A photo's bytes.

    Raises: BadImage for what is wrong with this one file; OSError if storage fails, or the whole source is gone.
    """
    if size < 0:
        raise BadImage("missing", "named by the source's lists, and there is no such file")
    if size > MAX_BYTES:
        raise BadImage("too-many-bytes", f"{size} bytes, the limit is {MAX_BYTES}")
    try:
        return _read(source, uri, size)
    except FileNotFoundError as error:
        if not _holds_anything(source):  # a mount that went away leaves an empty folder
            raise ConnectionError(f"{source} holds nothing any more, and held this photo when it was listed") from error
        raise BadImage("missing", "it was there when the source was listed, and is gone") from error
    except OSError as error:
        if not is_of_one_file(error):
            raise
        raise BadImage("not-readable", f"{type(error).__name__}: {error}") from error


def _read(source: Folder, uri: str, size: int) -> bytes:
    if uri.startswith(webdataset.SCHEME):
        data = webdataset.read_member(source, uri, size)
        if len(data) < size:
            raise BadImage("truncated", f"its tar ends after {len(data)} of its {size} bytes")
        return data
    if uri.startswith(image_table.SCHEME):
        (found,) = image_table.read_rows(source, [uri])
        if len(found) > MAX_BYTES:
            raise BadImage("too-many-bytes", f"{len(found)} bytes, the limit is {MAX_BYTES}")
        return found
    fs, path = open_uri(source, uri)
    with fs.open_input_stream(path) as stream:
        return stream.read()


def _holds_anything(source: Folder) -> bool:
    """Whether the place that photos come from is still there."""
    if source.is_local:
        with contextlib.suppress(FileNotFoundError), os.scandir(source.path) as names:
            return any(True for _ in names)
        return False
    return source.fs.get_file_info(source.path).type != pafs.FileType.NotFound
