"""The counted failpoint of the seam: off unless the environment says so, and counted where the writes happen."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.writing import failpoint

THREE = ["begun", "whole", "published"]


@pytest.fixture(autouse=True)
def _counted_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoint, "_own", 0)
    monkeypatch.delenv(failpoint.VARIABLE, raising=False)


def test_it_is_off_unless_the_environment_says_so(tmp_path: Path) -> None:
    failpoint.arm(tmp_path / "armed", "1:error")
    Folder.of(tmp_path).write_bytes("file", b"content")
    assert not failpoint.is_on() and failpoint.reached(tmp_path / "armed") == []


def test_each_file_passes_three_moments_which_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failpoint.VARIABLE, str(tmp_path / "armed"))
    failpoint.arm(tmp_path / "armed", failpoint.COUNT)
    Folder.of(tmp_path).write_bytes("a", b"content")
    Folder.of(tmp_path).write_bytes("b", b"content", about={})
    found = failpoint.reached(tmp_path / "armed")
    assert [moment for moment, _ in found] == THREE * 3
    assert [Path(path).relative_to(tmp_path).as_posix() for _, path in found[::3]] == ["a", "b", ".done/b.json"]
    failpoint.arm(tmp_path / "armed", failpoint.COUNT)
    assert failpoint.reached(tmp_path / "armed") == []


@pytest.mark.parametrize(("number", "old"), [(1, True), (2, True), (3, False)])
def test_an_error_at_each_moment_leaves_the_old_file_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, old: bool
) -> None:
    folder = Folder.of(tmp_path)
    folder.write_bytes("file", b"old")
    monkeypatch.setenv(failpoint.VARIABLE, f"{number}:error")
    with pytest.raises(OSError, match=f"error at moment {number} \\({THREE[number - 1]}\\).*{tmp_path}/file"):
        folder.write_bytes("file", b"newer")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert folder.read_bytes("file") == (b"old" if old else b"newer")
    folder.write_bytes("file", b"newest")  # the moment has passed


def _write(folder: str) -> None:
    Folder.of(folder).write_bytes("file", b"newer")


@pytest.mark.parametrize(("number", "left"), [(1, 2), (2, 5), (3, None)])
def test_an_exit_at_each_moment_is_a_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, left: int | None
) -> None:
    armed, made = tmp_path / "armed", tmp_path / "made"
    _write(str(made))
    monkeypatch.setenv(failpoint.VARIABLE, str(armed))
    failpoint.arm(armed, f"{number}:exit")
    process = multiprocessing.get_context("fork").Process(target=_write, args=(str(made),))
    process.start()
    process.join(60)
    assert process.exitcode == failpoint.EXIT_CODE
    halves = [path.stat().st_size for path in made.iterdir() if ".tmp-" in path.name]
    assert halves == ([] if left is None else [left]), "half of five bytes, all of them, or a file that has its name"
    assert len(failpoint.reached(armed)) == number
    _write(str(made))  # this process counts on where the other stopped
    assert len(failpoint.reached(armed)) == number + 3


def test_a_plan_that_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for plan in ("soon", "7:perhaps", "x:exit"):
        monkeypatch.setenv(failpoint.VARIABLE, plan)
        with pytest.raises(ValueError, match=f"RETRIEVAL_FAIL_AT_WRITE is '{plan}', expected for example 7:exit"):
            Folder.of(tmp_path).write_bytes("file", b"x")
    assert os.listdir(tmp_path) == []
