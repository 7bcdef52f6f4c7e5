"""The objects of a log, below `live/` of a workspace that several hosts reach.

`log/000000000000` names the log, `log/000000000001` and so on hold the changes, a group each. An object is put only
where none is, so of two hosts that want the same number one is told that it came too late: that is all that keeps them
in agreement. `base/NUMBER.db` are the tables as they are after that object. Objects that a base holds are emptied, not
removed: a number that was given stays given, however long a host slept.
"""

from __future__ import annotations

import contextlib
import functools
import os
import urllib.parse
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pyarrow.fs as pafs

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.storage.address import endpoint_of, keys_of, parse
from retrieval.artifacts.writing.seam import TEMP

_LOCAL = pafs.LocalFileSystem()
_AT_ONCE = 8  # objects that are emptied at once
_TIMEOUT_S, _CONNECT_S = 5, 2


class NotKept(ValueError):
    """A store that does not refuse to overwrite an object when it is asked to."""


@dataclass(frozen=True, slots=True)
class Log:
    """Of a workspace's folder `live`. beside: a file that is the base number 0 where there is no other: changes that
    were made while the workspace was one host's."""

    live: Folder
    beside: str

    @property
    def folder(self) -> Folder:
        return self.live / "log"

    def name(self) -> str | None:
        """Which log it is; None if there is none yet. Raises: OSError if storage cannot be reached."""
        found = self.read(0)
        return None if found is None else found.decode()

    def begin(self) -> str:
        """Make the log, unless it is there. Returns its name.

        Raises: NotKept if the store overwrites what is there: two hosts would then lose each other's changes.
        """
        if self.put_new(0, uuid.uuid4().hex.encode()) and self.put_new(0, b"x"):
            raise NotKept(
                f"{self.live} cannot hold changes of a gallery: its store ignores If-None-Match, so that two writers "
                f"would overwrite each other. Use a store that has conditional writes."
            )
        name = self.name()
        assert name is not None
        return name

    def read(self, number: int) -> bytes | None:
        """None where there is none yet, empty where a base holds it."""
        try:
            return self.folder.read_bytes(_name(number))
        except FileNotFoundError:
            return None

    def put_new(self, number: int, data: bytes) -> bool:
        """Put an object, durable when it returns. Returns False if there is one of this number.

        Raises: OSError if that cannot be known: it may be there, now or later.
        """
        return put_new(self.folder, _name(number), data)

    def newest_base(self) -> tuple[int, str] | None:
        """Number and name, below `live`, of the newest base."""
        if bases := self._bases():
            return max(bases)
        return (0, self.beside) if self.live.exists(self.beside) else None

    def fetch(self, base: str, to: Path) -> None:
        """Copy a base to this host's disk. Raises: FileNotFoundError if a newer one took its place."""
        pafs.copy_files(self.live.file(base), str(to), source_filesystem=self.live.fs, destination_filesystem=_LOCAL)

    def rebase(self, number: int, tables: Path) -> None:
        """Make a file the base, and let go of what it holds: older bases, and what is in the objects up to it."""
        base = f"base/{_name(number)}.db"
        if not self.live.exists(base):
            if self.live.is_local:
                Path(self.live.file("base")).mkdir(exist_ok=True, mode=0o700)
            self.live.write_file(base, tables)
        for other, name in self._bases():
            if other < number:
                self.live.remove(name)
        self.live.remove(self.beside)
        if self.live.is_local:
            self._sweep(number)
        full = [name for name, size in self.folder.list().items() if size and 0 < _number(name) <= number]
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="empty") as pool:
            for _ in pool.map(lambda name: self.folder.write_bytes(name, b""), full):
                pass

    def _sweep(self, number: int) -> None:
        """Of writers that were killed on a disk: files that never got their names."""
        for folder in ("base", "log"):
            for half in Path(self.live.file(folder)).glob(f"*{TEMP}*"):
                if folder == "base" or _number(half.name.partition(TEMP)[0]) <= number:
                    half.unlink(missing_ok=True)

    def _bases(self) -> list[tuple[int, str]]:
        names = [name for name in (self.live / "base").list() if name.endswith(".db")]
        return [(_number(name.removesuffix(".db")), f"base/{name}") for name in names]


def _name(number: int) -> str:
    return f"{number:012d}"


def _number(name: str) -> int:
    """0 for what is no object of ours."""
    return int(name) if name.isdigit() else 0


def put_new(folder: Folder, name: str, data: bytes) -> bool:
    """Write a file of a folder unless there is one; durable when it returns. Returns whether it was written.

    pyarrow's file systems cannot (25.0); so in an object store another client does it, with credentials that it finds
    in the environment, in `~/.aws/credentials` or at the host.

    Raises: OSError if that cannot be known; PermissionError.
    """
    if folder.is_local:
        return _link_new(Path(folder.path), name, data)
    from obstore import exceptions, put

    try:
        put(_client(folder.uri), name, data, mode="create", use_multipart=False)
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
        return False
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise PermissionError(_said(folder, error)) from error
    except (exceptions.BaseError, OSError) as error:
        raise OSError(_said(folder, error)) from error
    return True


def _said(folder: Folder, error: Exception) -> str:
    return f"{folder} cannot be written: {str(error).partition(chr(10))[0]}"


@functools.lru_cache(maxsize=8)
def _client(uri: str) -> Any:
    from obstore.store import from_url

    address, config = parse(uri), cast(Any, {})
    region = getattr(Folder.of(uri).fs, "region", None)  # pyarrow looks up where the bucket is
    if region and not {"AWS_REGION", "AWS_DEFAULT_REGION"} & os.environ.keys():
        config["region"] = region
    if endpoint := endpoint_of(address):
        config["endpoint"] = endpoint
    limits: Any = {"timeout": f"{_TIMEOUT_S}s", "connect_timeout": f"{_CONNECT_S}s"}
    limits["allow_http"] = endpoint.startswith("http:")
    retries: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=_TIMEOUT_S)}
    place = f"{address.scheme}://{address.bucket}/{urllib.parse.quote(address.path)}"
    return from_url(place, config=config | keys_of(address) or None, client_options=limits, retry_config=retries)


def _link_new(folder: Path, name: str, data: bytes) -> bool:
    """A file appears whole under its name, or not at all: a link to it is made, which fails where there is one."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    temp = folder / f"{name}{TEMP}{uuid.uuid4().hex[:8]}"
    try:
        with temp.open("xb") as sink:
            sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temp, folder / name)
            opened = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)
            return True
        return False
    finally:
        temp.unlink(missing_ok=True)
