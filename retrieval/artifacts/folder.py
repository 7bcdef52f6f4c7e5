"""A folder on local disk or in an object store, and how a file comes to lie in it whole.

Folders are named by URI, see `storage.address`: a local path, `s3://bucket/...`, `gs://bucket/...`, with options behind
a `?`. What is read is asked for again where a store does not answer, for as long as the job is patient.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from retrieval.artifacts.storage.address import local_path, open_address, parse
from retrieval.artifacts.storage.patience import patiently
from retrieval.artifacts.writing.done import MARKS, Done, is_content, marker
from retrieval.artifacts.writing.seam import publish

_PIECE = 1 << 20  # bytes of a file that are copied at once
GROUP = 1 << 16
"""Rows of a table that are written, and so read, at once where a table is too long to be held."""


def part_name(part: int) -> str:
    """File name of part number `part`: part-00007.parquet."""
    return f"part-{part:05d}.parquet"


def part_number(name: str) -> int:
    """Number of a part, from its file name. Raises: ValueError if it is no part's."""
    return int(name.removeprefix("part-").removesuffix(".parquet"))


def _open(uri: str) -> tuple[pafs.FileSystem, str]:
    if "://" not in uri:
        return pafs.LocalFileSystem(), str(Path(uri).absolute())
    address = parse(uri)
    return open_address(address), address.key


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder on local disk or in an object store. Cheap to make and to send: it holds only its URI."""

    uri: str

    @classmethod
    def of(cls, where: str | Path | Folder) -> Folder:
        """Local paths become absolute, since Ray's workers run in another folder; so do those of file://.

        Raises: ValueError for an address that does not name a place, see `storage.address.parse`.
        """
        if isinstance(where, Folder):
            return where
        uri = str(where)
        path = local_path(uri) if "://" in uri else uri
        if path is None:
            return cls(str(parse(uri)))
        return cls(str(Path(path.rstrip("/") or "/").expanduser().absolute()))

    def __truediv__(self, name: str) -> Folder:
        path, mark, options = self._split()
        return Folder(f"{path.rstrip('/')}/{name}{mark}{options}")

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self._split()[0].rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> Folder:
        """The folder it lies in. Of a bucket, or of the root, there is none above: itself."""
        path, mark, options = self._split()
        above = path.rpartition("/")[0]
        if "://" in path and above.endswith("/"):
            return self
        return Folder(f"{above or '/'}{mark}{options}")

    def relative_to(self, other: Folder) -> str:
        """Its path below `other`; where it does not lie there, its own address."""
        (path, _, options), (above, _, theirs) = self._split(), other._split()
        inside = path.startswith(f"{above.rstrip('/')}/") and options == theirs
        return path[len(above.rstrip("/")) + 1 :] if inside else self.uri

    def _split(self) -> tuple[str, str, str]:
        """What is before the options, the mark, and they; a local path has none."""
        return self.uri.partition("?") if "://" in self.uri else (self.uri, "", "")

    def __str__(self) -> str:
        return self.uri

    @property
    def is_local(self) -> bool:
        return "://" not in self.uri

    @property
    def fs(self) -> pafs.FileSystem:
        return _open(self.uri)[0]

    @property
    def _puts(self) -> pafs.FileSystem:
        return self.fs if self.is_local else open_address(parse(self.uri), puts=True)

    @property
    def path(self) -> str:
        """The folder's path inside `fs`."""
        return _open(self.uri)[1]

    def file(self, name: str) -> str:
        """Path inside `fs` of the file `name` of this folder."""
        return f"{self.path}/{name}"

    def exists(self, name: str) -> bool:
        info = patiently(lambda: self.fs.get_file_info(self.file(name)), f"looking for {self / name}")
        return info.type == pafs.FileType.File

    def list(self) -> dict[str, int]:
        """Relative names of all finished files below this folder, with their sizes in bytes, sorted by name."""
        found = {}
        for name, info in self._below():
            if info.type == pafs.FileType.File and is_content(name):
                found[name] = info.size
        return dict(sorted(found.items()))

    def read_bytes(self, name: str) -> bytes:
        return patiently(lambda: self._read(name), f"reading {self / name}")

    def _read(self, name: str) -> bytes:
        with self.fs.open_input_file(self.file(name)) as stream:
            return stream.read()

    def read_range(self, name: str, start: int, size: int) -> bytes:
        """So many bytes of a file from there on; fewer where it ends before."""
        return patiently(lambda: self._read_range(name, start, size), f"reading {self / name}")

    def _read_range(self, name: str, start: int, size: int) -> bytes:
        with self.fs.open_input_file(self.file(name)) as stream:
            return stream.read_at(size, start) if start < stream.size() else b""

    def write_bytes(self, name: str, data: bytes, about: Mapping[str, Any] | None = None) -> Done:
        """Atomic: a reader sees the old file or the whole new one, never a half.

        Args: about: leaves a done-marker that tells this of the file; None: leaves none.
        """
        return self._write(name, lambda file: file.write(data), about)

    def write_file(self, name: str, source: Path, about: Mapping[str, Any] | None = None) -> Done:
        """As `write_bytes`, of a file of this machine, however large."""
        with source.open("rb") as file:
            return self._write(name, lambda to: shutil.copyfileobj(file, to, _PIECE), about)

    def write_stream(self, name: str, fill: Callable[[Any], Any], about: Mapping[str, Any] | None = None) -> Done:
        """As `write_bytes`. Args: fill: writes the content, piece by piece, to the binary file that it is given."""
        return self._write(name, fill, about)

    def read_json(self, name: str) -> Any:
        return json.loads(self.read_bytes(name))

    def write_json(self, name: str, value: Any, about: Mapping[str, Any] | None = None) -> Done:
        """As `write_bytes`."""
        return self.write_bytes(name, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode(), about)

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        read = lambda: pq.read_table(self.file(name), columns=columns, filesystem=self.fs)  # noqa: E731
        return patiently(read, f"reading {self / name}")

    def read_where(self, name: str, column: str, value: int, columns: list[str] | None = None) -> pa.Table:
        """Rows of a table in which `column` is `value`. Of a sorted one few row groups are read."""
        chosen = [(column, "=", value)]
        read = lambda: pq.read_table(self.file(name), columns=columns, filters=chosen, filesystem=self.fs)  # noqa: E731
        return patiently(read, f"reading {self / name}")

    def read_groups(self, name: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """A table row group by row group, for who does not want it all at once."""
        with patiently(lambda: pq.ParquetFile(self.file(name), filesystem=self.fs), f"reading {self / name}") as file:
            for number in range(file.num_row_groups):
                read = functools.partial(file.read_row_group, number, columns=columns)
                yield patiently(read, f"reading {self / name}")

    def num_rows(self, name: str) -> int:
        """Of a table, without reading it."""
        return self._footer(name).num_rows

    def columns(self, name: str) -> list[str]:
        """Names of a table's columns, without reading it."""
        return self._footer(name).schema.to_arrow_schema().names

    def read_batches(self, name: str, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """A table in order, some rows at a time; in memory is the row group that they are of, and no other."""
        for table in self.read_groups(name, columns):
            yield from table.to_batches(max_chunksize=GROUP)

    def _footer(self, name: str) -> pq.FileMetaData:
        read = functools.partial(pq.read_metadata, self.file(name), filesystem=self.fs)
        return patiently(read, f"reading {self / name}")

    def write_table(self, name: str, table: pa.Table, about: Mapping[str, Any] | None = None, **options: Any) -> Done:
        """As `write_bytes`, in Parquet. Args: options: of `pyarrow.parquet.write_table`."""
        return self._write(name, lambda file: pq.write_table(table, file, **options), about)

    def write_batches(
        self, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], about: Mapping[str, Any] | None = None
    ) -> Done:
        """As `write_table`, of rows that come some at a time and are let go of; a row group has GROUP of them."""
        return self._write(name, lambda file: _fill_table(file, schema, batches), about)

    def _write(self, name: str, fill: Callable[[Any], Any], about: Mapping[str, Any] | None) -> Done:
        self._unmark(name)  # or a death between the two steps below would leave the marker of the old file
        written = publish(self.fs, self.file(name), fill, self._puts)
        done = Done(name=name, num_bytes=written.num_bytes, sha256=written.sha256, about=dict(about or {}))
        if about is not None:
            publish(self.fs, self.file(marker(name)), lambda file: file.write(done.to_bytes()), self._puts)
        return done

    def done(self, name: str) -> Done | None:
        """What the marker of a file says, if the file is there, as long as it was; None: make it, or make it again."""
        try:
            done = Done.from_bytes(self.read_bytes(marker(name)))
        except FileNotFoundError:
            return None
        info = patiently(lambda: self.fs.get_file_info(self.file(name)), f"looking for {self / name}")
        return done if info.type == pafs.FileType.File and info.size == done.num_bytes else None

    def remove(self, name: str) -> None:
        """Nothing, if there is no such file."""
        self._unmark(name)
        if self.exists(name):
            self._delete(name)

    def remove_all(self, below: str) -> None:
        """All files whose names begin with `below` and a slash."""
        for name in self.list():
            if name.startswith(f"{below}/"):
                self.remove(name)

    def remove_marks(self) -> None:
        """Of all files below this folder: its seal says what they said."""
        inside = (name.split("/") for name, _ in self._below())
        for place in sorted({"/".join(at[: at.index(MARKS) + 1]) for at in inside if MARKS in at}):
            self._delete(place, self.fs.delete_dir)

    def _below(self) -> list[tuple[str, pafs.FileInfo]]:
        """All files and folders, with their relative names."""
        path = self.path
        selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
        infos = patiently(lambda: self.fs.get_file_info(selector), f"listing {self}")
        return [(info.path[len(path) :].strip("/"), info) for info in infos]

    def _unmark(self, name: str) -> None:
        if self.exists(marker(name)):
            self._delete(marker(name))

    def _delete(self, name: str, delete: Callable[[str], Any] | None = None) -> None:
        delete = delete or self.fs.delete_file
        with contextlib.suppress(FileNotFoundError):  # a try whose answer was lost had done it
            patiently(lambda: delete(self.file(name)), f"removing {self / name}")


def _fill_table(file: Any, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    held: list[pa.RecordBatch] = []
    with pq.ParquetWriter(file, schema) as writer:
        for batch in batches:
            held.append(batch)
            if sum(map(len, held)) >= GROUP:
                table = pa.Table.from_batches(held, schema)
                whole = len(table) // GROUP * GROUP
                writer.write_table(table.slice(0, whole), GROUP)
                held = table.slice(whole).to_batches()
        writer.write_table(pa.Table.from_batches(held, schema), GROUP)
