"""Of two writers of a folder one wins, and the other says so; what a dead one left is taken away."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from retrieval.artifacts import folder as artifacts_folder
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.storage.failures import Outage
from retrieval.artifacts.storage.patience import patience
from retrieval.artifacts.writing import owner as owners
from retrieval.artifacts.writing.owner import Owner, sole_writer
from tests.support.waiting import until

FORK = multiprocessing.get_context("fork")


@pytest.fixture(params=["disk", "store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A folder on a disk, or in what is an object store to us and lies below tmp_path."""
    monkeypatch.setattr(owners, "SETTLE_S", 0.3)
    monkeypatch.setattr(owners, "BEAT_S", 0.2)
    monkeypatch.setattr(owners, "STALE_S", 1.5)
    fs = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    real = artifacts_folder._open
    monkeypatch.setattr(
        artifacts_folder, "_open", lambda uri: (fs, uri.removeprefix("s3://")) if "://" in uri else real(uri)
    )
    monkeypatch.setattr(artifacts_folder, "open_address", lambda _, puts: fs)
    for made in ("made", "made/embeddings"):
        (tmp_path / "bucket" / made / ".owner").mkdir(parents=True)
    return Folder.of(tmp_path / "made" if request.param == "disk" else "s3://bucket/made")


def _hold(folder: Folder, line: Any) -> None:
    with sole_writer(folder, "embed"):
        folder.write_bytes("file", b"theirs")
        line.send("ready")
        line.poll(60)


@contextmanager
def _another(folder: Folder) -> Iterator[Any]:
    """A process that writes there for the length of the block."""
    ours, theirs = FORK.Pipe()  # no event: setting one waits for those who wait for it, dead ones too
    process = FORK.Process(target=_hold, args=(folder, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        assert ours.poll(60) and ours.recv() == "ready"
        yield process
    finally:
        with suppress(BrokenPipeError):  # it was killed
            ours.send("over")
        process.join(60)


def test_the_second_is_told_who_the_first_is(folder: Folder) -> None:
    with _another(folder) as process:
        said = rf"is being written by embed \(process {process.pid} on .*another output folder"
        with pytest.raises(ValueError, match=said), sole_writer(folder, "train"):
            raise AssertionError("two are at work")
        assert list(folder.list()) == ["file"], "who is at work is no content"
    with sole_writer(folder, "train"):
        folder.write_bytes("file", b"ours")


def test_after_a_death_the_next_goes_on(folder: Folder) -> None:
    with _another(folder) as process:
        process.kill()
        process.join(60)
        with sole_writer(folder, "train"):
            pass


def test_of_those_who_come_at_once_one_wins(folder: Folder) -> None:
    """Processes, as jobs are: a folder that is held is held by all of a process."""
    outcomes, refused = FORK.Queue(), FORK.Semaphore(0)
    start = FORK.Barrier(4)

    def come() -> None:
        start.wait(60)
        try:
            with sole_writer(folder, "embed"):
                outcomes.put("won")
                for _ in range(3):
                    refused.acquire(timeout=60)
        except ValueError:
            outcomes.put("refused")
            refused.release()

    processes = [FORK.Process(target=come, daemon=True) for _ in range(4)]
    for process in processes:
        process.start()
    assert sorted(outcomes.get(timeout=60) for _ in processes) == ["refused"] * 3 + ["won"]
    for process in processes:
        process.join(60)


def test_in_it_again_is_no_other_writer_and_afterwards_nothing_is_left(folder: Folder) -> None:
    with sole_writer(folder, "evaluate"):
        with sole_writer(folder, "embed"):
            pass
        with sole_writer(folder / "embeddings", "embed"):
            pass
        folder.write_bytes("file", b"x")
    infos = folder.fs.get_file_info(pafs.FileSelector(folder.path, recursive=True))
    assert [info.base_name for info in infos if info.type == pafs.FileType.File] == ["file"]


def test_a_folder_where_nothing_came_to_lie_is_not_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no photo"), sole_writer(Folder.of(tmp_path / "new"), "ingest"):
        raise ValueError("no photo")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="Cannot write to .*--out"), sole_writer(Folder.of(tmp_path / "file/x"), "x"):
        pass


def test_halves_that_a_dead_writer_left_are_taken_away(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    folder.write_bytes("images/a", b"whole")
    for name in ("images/a.tmp-0badf00d", "b.tmp-0badf00d", ".done/b.json.tmp-0badf00d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"ha")
    with sole_writer(folder, "embed"):
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".owner", "a"]


def _claim(folder: Folder, name: str, **changes: Any) -> None:
    """Of a writer on another machine, put now."""
    other = replace(Owner.of_this_process("train"), machine="another", host="node-7", **changes)
    owners._put(folder / ".owner", name, other)


@pytest.mark.parametrize("folder", ["store"], indirect=True)
def test_a_writer_of_another_machine_that_beats_no_more_is_outlived(folder: Folder) -> None:
    _claim(folder, "0dead")
    began = time.monotonic()
    with sole_writer(folder, "train"):
        assert time.monotonic() - began > 1.0, "it might have lived"
        assert not (folder / ".owner").exists("0dead")


@pytest.mark.parametrize("folder", ["store"], indirect=True)
def test_a_writer_of_another_machine_that_beats_refuses_the_next(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "STALE_S", 60.0)  # however late the machine lets it beat
    over = threading.Event()
    first = owners._put(folder / ".owner", "0alive", replace(Owner.of_this_process("train"), machine="another"))
    beat = threading.Thread(target=owners._beat, args=(folder / ".owner", "0alive", first, over))
    beat.start()
    try:
        with pytest.raises(ValueError, match="is being written by train"), sole_writer(folder, "train"):
            raise AssertionError("two are at work")
    finally:
        over.set()
        beat.join()


@pytest.mark.parametrize("folder", ["store"], indirect=True)
def test_a_claim_that_cannot_be_read_is_waited_for_until_it_is_stale(folder: Folder) -> None:
    (folder / ".owner").write_bytes("half", b"")
    began = time.monotonic()
    with sole_writer(folder, "train"):
        assert time.monotonic() - began > 1.0, "it might have lived"
        assert not (folder / ".owner").exists("half")


@pytest.mark.parametrize("folder", ["store"], indirect=True)
def test_one_that_came_later_gives_way_and_is_not_waited_for(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "STALE_S", 3600.0)  # for so long it would be waited for: it beats no more
    _claim(folder, "later", asked=2**62)

    def last_beat() -> int:
        claims = folder.fs.get_file_info(pafs.FileSelector((folder / ".owner").path))
        [beat] = [info.mtime_ns for info in claims if info.base_name != "later"]
        return beat

    with sole_writer(folder, "train"):
        assert (folder / ".owner").exists("later")
        first = last_beat()
        until(lambda: last_beat() > first)


@pytest.mark.parametrize("folder", ["store"], indirect=True)
def test_a_store_that_fails_for_a_moment_is_waited_for_and_then_it_is_an_outage(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, fails = owners._put, [1, 1]

    def put(*claim: Any) -> Owner:
        if fails:
            fails.pop()
            raise OSError(errno.EIO, "Input/output error")
        return real(*claim)

    monkeypatch.setattr(owners, "_put", put)
    with patience(30), sole_writer(folder, "train"):
        assert not fails
    fails += [1] * 99
    with patience(0.1), pytest.raises(Outage, match="claiming s3://bucket/made failed"), sole_writer(folder, "train"):
        raise AssertionError("it has no claim")


def test_a_process_is_known_to_be_dead_only_on_its_own_machine() -> None:
    me = Owner.of_this_process("embed")
    assert not me.is_dead and Owner(**asdict(me)) == me
    assert replace(me, started="1").is_dead, "its number was given to another process"
    assert not replace(me, started="1", machine="another").is_dead
    assert not replace(me, started="1", machine="").is_dead
    assert str(os.getpid()) in str(me) and "embed" in str(me)
