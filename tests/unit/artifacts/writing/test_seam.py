"""A file is whole before it has its name, and has its hash from being written."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from retrieval.artifacts.writing.seam import Written, publish

LOCAL = pafs.LocalFileSystem()
CONTENT = bytes(range(256)) * 5000


def _in_pieces(file: Any) -> None:
    for start in range(0, len(CONTENT), 777):
        assert file.write(CONTENT[start : start + 777]) == min(777, len(CONTENT) - start)


@pytest.fixture(params=["disk", "store"])
def fs(request: pytest.FixtureRequest) -> pafs.FileSystem:
    """`store`: what is no local file system to the seam, and shows all that is done to it."""
    return LOCAL if request.param == "disk" else pafs.SubTreeFileSystem("/", LOCAL)


def test_bytes_and_hash_are_those_of_the_file(fs: pafs.FileSystem, tmp_path: Path) -> None:
    path = str(tmp_path / "file.gz")  # a name that pyarrow would compress for
    written = publish(fs, path, _in_pieces)
    assert Path(path).read_bytes() == CONTENT
    assert written == Written(len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert publish(fs, path, lambda file: None) == Written(0, hashlib.sha256(b"").hexdigest())
    assert Path(path).read_bytes() == b""


def test_an_exception_inside_a_parquet_write_leaves_no_shorter_file(fs: pafs.FileSystem, tmp_path: Path) -> None:
    """What a resume would trust: a file that is valid, of fewer rows."""
    path = str(tmp_path / "part.parquet")

    def fill(file: Any) -> None:
        with pq.ParquetWriter(file, pa.schema([("x", pa.int64())])) as writer:
            writer.write_table(pa.table({"x": [1, 2, 3]}))
            raise MemoryError("in the midst of it")

    with pytest.raises(MemoryError, match="in the midst"):
        publish(fs, path, fill)
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_given_a_file_in_one_piece_under_its_own_name(tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []

    class Stream:
        def __enter__(self) -> Stream:
            return self

        def __exit__(self, *_: object) -> None:
            calls.append(("close", 0))

        def write(self, content: Any) -> None:
            calls.append(("write", len(content)))

    class Store:
        def open_output_stream(self, path: str, compression: None) -> Stream:
            calls.append((path, 0))
            return Stream()

    written = publish(Store(), "bucket/a/file", _in_pieces)  # type: ignore[arg-type]
    assert calls == [("bucket/a/file", 0), ("write", len(CONTENT)), ("close", 0)]
    assert written.num_bytes == len(CONTENT)


def test_on_a_disk_the_file_is_flushed_before_it_has_its_name_and_the_folders_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(number: int) -> None:
        done.append("flush " + os.readlink(f"/proc/self/fd/{number}").removeprefix(str(tmp_path)).partition(".tmp-")[0])
        real_fsync(number)

    def replace(temp: str, final: str) -> None:
        assert os.path.dirname(temp) == os.path.dirname(final), "a rename from elsewhere may be a copy"
        done.append("name " + final.removeprefix(str(tmp_path)))
        real_replace(temp, final)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    publish(LOCAL, str(tmp_path / "new/deep/file"), _in_pieces)
    made = ["flush ", "flush /new"]  # the folders that were made, each by the one above
    assert done == [*made, "flush /new/deep/file", "name /new/deep/file", "flush /new/deep"]
