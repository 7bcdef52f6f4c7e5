"""A folder on local disk or in an object store, and how a file comes to lie in it whole.

Folders are named by URI, anything `pyarrow.fs` opens: a local path, `s3://bucket/...`, `gs://bucket/...`.
"""

from __future__ import annotations

import functools
import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq


def part_name(part: int) -> str:
    """File name of part number `part`: part-00007.parquet."""
    return f"part-{part:05d}.parquet"


def part_number(name: str) -> int:
    """Number of a part, from its file name. Raises: ValueError if it is no part's."""
    return int(name.removeprefix("part-").removesuffix(".parquet"))


@functools.lru_cache(maxsize=32)
def _open(uri: str) -> tuple[pafs.FileSystem, str]:
    if "://" not in uri:
        return pafs.LocalFileSystem(), str(Path(uri).absolute())
    return pafs.FileSystem.from_uri(uri)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder on local disk or in an object store. Cheap to make and to send: it holds only its URI."""

    uri: str

    @classmethod
    def of(cls, where: str | Path | Folder) -> Folder:
        """Local paths become absolute, since Ray's workers run in another folder."""
        if isinstance(where, Folder):
            return where
        uri = str(where).rstrip("/") or "/"
        return cls(uri if "://" in uri else str(Path(uri).expanduser().absolute()))

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.uri}/{name}")

    def __str__(self) -> str:
        return self.uri

    @property
    def is_local(self) -> bool:
        return isinstance(self.fs, pafs.LocalFileSystem)

    @property
    def fs(self) -> pafs.FileSystem:
        return _open(self.uri)[0]

    @property
    def path(self) -> str:
        """The folder's path inside `fs`."""
        return _open(self.uri)[1]

    def file(self, name: str) -> str:
        """Path inside `fs` of the file `name` of this folder."""
        return f"{self.path}/{name}"

    def exists(self, name: str) -> bool:
        return self.fs.get_file_info(self.file(name)).type == pafs.FileType.File

    def list(self) -> dict[str, int]:
        """Relative names of all finished files below this folder, with their sizes in bytes, sorted by name."""
        selector = pafs.FileSelector(self.path, recursive=True, allow_not_found=True)
        found = {}
        for info in self.fs.get_file_info(selector):
            name = info.path[len(self.path) :].lstrip("/")
            if info.type == pafs.FileType.File and ".tmp-" not in name:
                found[name] = info.size
        return dict(sorted(found.items()))

    def read_bytes(self, name: str) -> bytes:
        with self.fs.open_input_file(self.file(name)) as stream:
            return stream.read()

    def write_bytes(self, name: str, data: bytes) -> None:
        """Atomic: a reader sees the old file or the whole new one, never a half."""
        with _atomic(self, name) as path, self.fs.open_output_stream(path) as stream:
            stream.write(data)

    def read_json(self, name: str) -> Any:
        return json.loads(self.read_bytes(name))

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(self.file(name), columns=columns, filesystem=self.fs)

    def write_table(self, name: str, table: pa.Table, **options: Any) -> None:
        """Atomic, as `write_bytes`."""
        with _atomic(self, name) as path:
            pq.write_table(table, path, filesystem=self.fs, **options)

    def remove(self, name: str) -> None:
        if self.exists(name):
            self.fs.delete_file(self.file(name))


class _atomic:
    """Temp name, then rename, on a local disk. Object stores already publish an object only when it is complete."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._fs, self._final = folder.fs, folder.file(name)
        self._rename = folder.is_local
        self._temp = f"{self._final}.tmp-{uuid.uuid4().hex[:8]}" if self._rename else self._final

    def __enter__(self) -> str:
        if self._rename:
            os.makedirs(os.path.dirname(self._temp), exist_ok=True)
        return self._temp

    def __exit__(self, kind: Any, *_: Any) -> None:
        if not self._rename:
            return
        if kind is None:
            os.replace(self._temp, self._final)
        elif os.path.exists(self._temp):
            os.remove(self._temp)
