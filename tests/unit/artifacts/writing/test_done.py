"""Done-markers: where there is one, its file is whole, and is what it says."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.writing import failpoint
from retrieval.artifacts.writing.done import Done, is_content, marker


def test_a_marker_says_what_was_written(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    done = folder.write_bytes("images/a", b"12345", about={"taken": 3})
    assert done == Done(name="images/a", num_bytes=5, sha256=hashlib.sha256(b"12345").hexdigest(), about={"taken": 3})
    assert folder.done("images/a") == done == Done.from_bytes(done.to_bytes())
    table = folder.write_table("t", pa.table({"x": [1]}), about={})
    assert folder.done("t") == table and table.num_bytes == folder.list()["t"]
    assert folder.write_json("j", {"a": 1}, about={}) == folder.done("j")
    assert list(folder.list()) == ["images/a", "j", "t"], "markers are no content"


def test_without_a_marker_a_file_is_not_done(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    assert folder.done("a") is None
    folder.write_bytes("a", b"x")
    assert folder.done("a") is None


def test_a_marker_of_another_file_says_nothing(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    folder.write_bytes("a", b"12345", about={})
    (tmp_path / "a").write_bytes(b"1234")
    assert folder.done("a") is None, "cut short by somebody else"
    (tmp_path / "a").unlink()
    assert folder.done("a") is None
    folder.write_bytes("a", b"12345", about={})
    folder.write_bytes("a", b"54321")
    assert folder.done("a") is None, "written again by one who leaves no marker"


@pytest.mark.parametrize("number", range(1, 7))
def test_a_file_that_is_written_again_never_has_the_marker_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    folder = Folder.of(tmp_path)
    folder.write_bytes("a", b"12345", about={})
    monkeypatch.setattr(failpoint, "_own", 0)
    monkeypatch.setenv(failpoint.VARIABLE, f"{number}:error")
    with pytest.raises(OSError, match="failpoint"):
        folder.write_bytes("a", b"54321", about={})
    done = folder.done("a")
    assert done is None or (number == 6 and done.sha256 == hashlib.sha256(b"54321").hexdigest())


def test_markers_go_with_their_file_and_with_the_seal(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    folder.write_bytes("a", b"x", about={})
    folder.remove("a")
    folder.write_bytes("a", b"x")
    assert folder.done("a") is None
    folder.write_bytes("b", b"x", about={})
    (folder / "groups" / "7").write_bytes("c", b"x", about={})
    folder.remove_marks()
    assert not list(tmp_path.rglob(".done")) and list(folder.list()) == ["a", "b", "groups/7/c"]
    Folder.of(tmp_path / "nowhere").remove_marks()


def test_what_is_content() -> None:
    assert is_content("a") and is_content("images/part-00000.parquet") and is_content("x.done")
    for name in (marker("a"), f"groups/7/{marker('images/a')}", "a.tmp-0badf00d", ".owner", ".owner/0badf00d"):
        assert not is_content(name)
