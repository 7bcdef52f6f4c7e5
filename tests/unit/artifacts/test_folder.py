"""Files come to lie in a folder whole, on a disk and in an object store."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.artifacts import folder as folder_module
from retrieval.artifacts.folder import Folder, part_name, part_number


def _table(folder: Folder, value: int) -> None:
    folder.write_table("file", pa.table({"x": [value]}))


def _bytes(folder: Folder, value: int) -> None:
    folder.write_bytes("file", str(value).encode())


@pytest.mark.parametrize("write", [_table, _bytes])
def test_a_crash_before_the_rename_keeps_the_old_file_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Folder, int], None]
) -> None:
    folder = Folder.of(tmp_path)
    write(folder, 1)
    before = folder.read_bytes("file")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", _die)
        with pytest.raises(SystemExit):
            write(folder, 2)
    # The process died with the new bytes complete under the temporary name: a reader still sees the old file alone.
    assert folder.read_bytes("file") == before
    assert list(folder.list()) == ["file"]
    write(folder, 2)
    assert folder.read_bytes("file") != before


def _die(*_: object) -> None:
    raise SystemExit("killed")


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    wrong = pa.table({"x": [1]})
    with pytest.raises(TypeError):
        folder.write_table("part", wrong, no_such_option=True)
    assert list(tmp_path.iterdir()) == []


def test_folders_are_absolute_and_uris_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Folder.of("a/b/").uri == str(tmp_path / "a/b")
    assert Folder.of("s3://bucket/a/").uri == "s3://bucket/a"
    assert (Folder.of("s3://bucket") / "a").uri == "s3://bucket/a"
    assert Folder.of(Folder.of("a")) == Folder.of("a")
    assert Folder.of("~/x").uri == str(Path("~/x").expanduser())
    assert Folder.of("/").uri == "/"
    assert Folder.of(tmp_path / "a").uri == str(tmp_path / "a") == str(Folder.of(tmp_path / "a"))


def test_parts_sort_by_their_numbers() -> None:
    assert [part_name(part) for part in (0, 7, 12345)] == [
        "part-00000.parquet",
        "part-00007.parquet",
        "part-12345.parquet",
    ]
    assert [part_number(part_name(part)) for part in (0, 7, 12345, 123456)] == [0, 7, 12345, 123456]


def test_finished_files_are_listed_below_the_folder_with_their_sizes(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path / "made")
    assert folder.list() == {}, "a folder that is not there holds nothing"
    folder.write_bytes("images/b", b"12345")
    folder.write_bytes("z", b"")
    folder.write_bytes("images/a", b"1")
    (tmp_path / "made/images/c.tmp-0badf00d").write_bytes(b"half")
    (tmp_path / "made/empty").mkdir()
    (tmp_path / "made-too").mkdir()
    (tmp_path / "made-too/other").write_bytes(b"not below")
    assert list(folder.list().items()) == [("images/a", 1), ("images/b", 5), ("z", 0)]
    assert (folder / "images").list() == {"a": 1, "b": 5}
    assert folder.exists("images/a") and not folder.exists("images") and not folder.exists("y")


def test_what_is_written_is_read_back_and_removed(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path) / "new" / "deep"
    folder.write_bytes("bytes", bytes(range(256)))
    assert folder.read_bytes("bytes") == bytes(range(256))
    folder.write_file("copy", Path(folder.file("bytes")), about={"n": 1})
    assert folder.read_bytes("copy") == bytes(range(256)) and (folder.done("copy") or pytest.fail()).about == {"n": 1}
    folder.remove("copy")
    folder.write_json("json", {"b": [1, None], "a": "é"})
    assert folder.read_json("json") == {"a": "é", "b": [1, None]}
    text = folder.read_bytes("json").decode()
    assert text.index('"a"') < text.index('"b"') and text.endswith("}\n"), "the same value is the same bytes"
    table = pa.table({"x": [1, 2, 3], "y": ["a", "b", "c"]})
    folder.write_table("table", table, row_group_size=2)
    assert folder.read_table("table") == table
    assert folder.read_table("table", columns=["y"]).column_names == ["y"]
    assert pq.ParquetFile(tmp_path / "new/deep/table").num_row_groups == 2
    folder.remove("table")
    folder.remove("table")  # gone already: nothing to do
    assert list(folder.list()) == ["bytes", "json"]
    with pytest.raises(FileNotFoundError):
        folder.read_bytes("table")


def test_a_table_is_read_group_by_group(tmp_path: Path) -> None:
    folder, table = Folder.of(tmp_path), pa.table({"a": list(range(10)), "b": list("abcdefghij")})
    folder.write_table("t.parquet", table, row_group_size=4)
    groups = list(folder.read_groups("t.parquet", ["b"]))
    assert [group.num_rows for group in groups] == [4, 4, 2]
    assert pa.concat_tables(groups).equals(table.select(["b"]))
    with pytest.raises(FileNotFoundError):
        list(folder.read_groups("other.parquet"))


def test_all_below_a_name_is_removed_and_nothing_beside_it(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    for name in ("a/b", "a/c/d", "ab", "b/a/e"):
        folder.write_bytes(name, b"", about={})
    for _ in range(2):
        folder.remove_all("a")
        assert list(folder.list()) == ["ab", "b/a/e"] and folder.done("a/b") is None


@pytest.mark.parametrize("of", [[0, 0, 1, 1, 1, 1, 1, 3, 3, 4], [4, 1, 0, 3, 1, 1, 0, 1, 3, 1]])
def test_rows_of_one_number_are_found(of: list[int], tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    folder.write_table("t.parquet", pa.table({"of": of, "x": range(10), "y": range(10)}), row_group_size=2)
    for number in range(6):
        wanted = [at for at, own in enumerate(of) if own == number]
        assert folder.read_where("t.parquet", "of", number, ["x"]).to_pydict() == {"x": wanted}
        assert folder.read_where("t.parquet", "of", number)["y"].to_pylist() == wanted


@pytest.mark.parametrize(("start", "size", "found"), [(0, 3, b"012"), (7, 3, b"789"), (8, 5, b"89"), (10, 2, b"")])
def test_some_bytes_of_a_file_are_read(start: int, size: int, found: bytes, bucket: Folder, tmp_path: Path) -> None:
    for folder in (bucket, Folder.of(tmp_path)):
        folder.write_bytes("file", b"0123456789")
        assert folder.read_range("file", start, size) == found


def test_an_object_store_is_written_and_read_as_a_disk_is(
    bucket: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It publishes an object only when it is complete: nothing to rename there, least of all on the local disk.
    monkeypatch.setattr(os, "replace", _die)
    bucket.write_bytes("a", b"whole")
    bucket.write_table("b", pa.table({"x": [1]}))
    assert not bucket.is_local and Folder.of(tmp_path).is_local
    assert (bucket.file("a"), bucket.list()["a"]) == (f"{bucket.path}/a", 5)
    assert list(bucket.list()) == ["a", "b"] and bucket.read_bytes("a") == b"whole"
    assert bucket.read_table("b")["x"].to_pylist() == [1]
    bucket.remove("a")
    assert not bucket.exists("a")


def test_a_write_that_fails_keeps_the_old_file_and_takes_its_half_away(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    folder.write_bytes("file", b"old")
    with pytest.raises(TypeError):
        folder.write_bytes("file", 5)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and folder.read_bytes("file") == b"old"


def test_writers_of_one_file_at_once_do_not_share_a_temporary_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temps: list[str] = []
    monkeypatch.setattr(os, "replace", lambda temp, _final: temps.append(temp))
    for _ in range(2):
        Folder.of(tmp_path).write_bytes("file", b"x")
    assert len(set(temps)) == 2 and {os.path.dirname(temp) for temp in temps} == {str(tmp_path)}


@pytest.mark.parametrize("num", [0, 1, 7, 8, 20])
def test_a_table_that_is_written_and_read_some_rows_at_a_time_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num: int
) -> None:
    monkeypatch.setattr(folder_module, "GROUP", 4)
    table = pa.table({"name": [f"{row}.jpg" for row in range(num)], "row": pa.array(range(num), pa.int32())})
    folder = Folder.of(tmp_path)
    done = folder.write_batches("t.parquet", table.schema, iter(table.to_batches(max_chunksize=3)), about={})
    assert folder.read_table("t.parquet").equals(table) and folder.done("t.parquet") == done
    batches = list(folder.read_batches("t.parquet", ["row"]))
    assert [row for batch in batches for row in batch["row"].to_pylist()] == list(range(num))
    assert all(len(batch) <= 4 for batch in batches) and len(batches) == -(-num // 4)
    assert (folder.num_rows("t.parquet"), folder.columns("t.parquet")) == (num, ["name", "row"])


def test_a_short_table_has_the_same_bytes_either_way(tmp_path: Path) -> None:
    table = pa.table({"name": [f"{row % 5}.jpg" for row in range(3000)], "row": range(3000)})
    folder = Folder.of(tmp_path)
    batches = table.to_batches(max_chunksize=1000)
    assert folder.write_batches("a", table.schema, batches).sha256 == folder.write_table("b", table).sha256
