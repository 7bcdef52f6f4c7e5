"""The one place where a file is written: made whole where nobody looks, then published by one step, hashed on the way.

On a disk it is written under a temporary name in the folder where it will lie, and flushed to the disk; then it gets
its name, and the folder is flushed too, so that after a power cut the name stands for all of its bytes or for the old
file. In an object store there is no such name: what is written there under any is there for all. So the file is made
whole on this machine first, and handed over in one piece, which a store shows when all of it has come, or never.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import mmap
import os
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow.fs as pafs

from retrieval.artifacts.storage.address import SINGLE_PUT
from retrieval.artifacts.storage.patience import patiently
from retrieval.artifacts.writing import failpoint

TEMP = ".tmp-"
"""In the name of a file that is being written on a disk."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was published. sha256: hex, of all its bytes."""

    num_bytes: int
    sha256: str


def publish(
    fs: pafs.FileSystem, path: str, fill: Callable[[Any], None], puts: pafs.FileSystem | None = None
) -> Written:
    """Write the file `path` of `fs`: a reader sees the old file or the whole new one, never a half.

    Args: fill: writes the content to the binary file it is given. What it raises leaves the old file as it was. puts:
        a file system for small files, if there is one apart: see `storage.address.open_address`.

    Raises: OSError if storage fails.
    """
    if isinstance(fs, pafs.LocalFileSystem):
        return _on_disk(path, fill)
    return _in_store(fs, path, fill, fs if puts is None else puts)


class _Sink(io.RawIOBase):
    """Hands on what is written to it, and hashes and counts it."""

    def __init__(self, into: BinaryIO, path: str) -> None:
        super().__init__()
        self._into, self._path = into, path
        self._sha256, self._num = hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self._num == 0 and failpoint.is_on():
            # A file of which half is there: what a process leaves that dies while it writes.
            self._into.write(view[: len(view) // 2])
            self._into.flush()
            failpoint.reach("begun", self._path)
            self._into.write(view[len(view) // 2 :])
        else:
            self._into.write(view)
        self._sha256.update(view)
        self._num += len(view)
        return len(view)

    def written(self) -> Written:
        return Written(self._num, self._sha256.hexdigest())


def _on_disk(path: str, fill: Callable[[Any], None]) -> Written:
    folder = os.path.dirname(path)
    _make_folder(folder)
    temp = f"{path}{TEMP}{uuid.uuid4().hex[:8]}"
    try:
        with open(temp, "xb") as file:
            sink = _Sink(file, path)
            fill(sink)
            file.flush()
            os.fsync(file.fileno())
        failpoint.reach("whole", path)
        os.replace(temp, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            os.remove(temp)
        raise
    _flush_folder(folder)
    failpoint.reach("published", path)
    return sink.written()


def _make_folder(folder: str) -> None:
    """With those above it; a name in a folder is on the disk when that folder is flushed."""
    if os.path.isdir(folder):
        return
    above = os.path.dirname(folder)
    _make_folder(above)
    os.makedirs(folder, exist_ok=True)
    _flush_folder(above)


def _flush_folder(folder: str) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    except OSError:  # some network file systems refuse it for a folder, and write names through
        pass
    finally:
        os.close(number)


def _in_store(fs: pafs.FileSystem, path: str, fill: Callable[[Any], None], puts: pafs.FileSystem) -> Written:
    with tempfile.TemporaryFile() as file:  # it has no name: nothing is left of it if this process dies
        sink = _Sink(file, path)
        fill(sink)
        file.flush()
        failpoint.reach("whole", path)
        written = sink.written()
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if written.num_bytes else b""
        # In one call: whatever ends this process, or is raised in it, no part of the content was taken for all of it,
        # as it would be if a stream were closed between two calls.
        chosen = puts if written.num_bytes <= SINGLE_PUT else fs
        patiently(lambda: _put(chosen, path, content), f"writing {path}")
    failpoint.reach("published", path)
    return written


def _put(fs: pafs.FileSystem, path: str, content: Any) -> None:
    with fs.open_output_stream(path, compression=None) as stream:
        stream.write(content)
