"""An object is put once; what a base holds is emptied, and its number stays given."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.live.log import objects
from retrieval.live.log.objects import Log, NotKept, put_new
from tests.support.object_store import ObjectStore


@pytest.fixture(params=["disk", "s3"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    if request.param == "disk":
        return Log(Folder.of(tmp_path) / "live", "gallery.db")
    store: ObjectStore = request.getfixturevalue("s3")
    return Log(Folder(store.bucket()) / "w" / "live", "gallery.db")


def test_an_object_is_put_where_none_is(log: Log) -> None:
    assert log.name() is None and log.read(1) is None and log.newest_base() is None
    name = log.begin()
    assert log.begin() == name == log.name() and len(name) == 32
    assert log.put_new(1, b"first") and not log.put_new(1, b"second")
    assert log.read(1) == b"first" and log.read(2) is None
    assert list(log.folder.list()) == ["000000000000", "000000000001"]


def test_of_many_that_want_a_number_one_gets_it(log: Log) -> None:
    won: list[int] = []
    start = threading.Barrier(6)

    def work(who: int) -> None:
        start.wait()
        if log.put_new(1, b"%d" % who):
            won.append(who)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and log.read(1) == b"%d" % won[0]


def test_a_base_lets_go_of_what_it_holds(log: Log, tmp_path: Path) -> None:
    log.live.write_bytes("gallery.db", b"changes of one host")
    log.begin()
    assert log.newest_base() == (0, "gallery.db")
    for number in (1, 2, 3):
        log.put_new(number, b"secret %d" % number)
    (tmp_path / "tables").write_bytes(b"tables after 2")
    log.rebase(2, tmp_path / "tables")
    assert log.newest_base() == (2, "base/000000000002.db")
    assert [log.read(number) for number in (1, 2, 3, 4)] == [b"", b"", b"secret 3", None]
    assert not log.put_new(1, b"late"), "a number that was given stays given"
    log.fetch("base/000000000002.db", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == b"tables after 2"
    (tmp_path / "tables").write_bytes(b"tables after 3")
    log.rebase(3, tmp_path / "tables")
    assert list((log.live / "base").list()) == ["000000000003.db"] and not log.live.exists("gallery.db")
    assert len(log.name() or "") == 32, "the log keeps its name"
    with pytest.raises(FileNotFoundError):
        log.fetch("base/000000000002.db", tmp_path / "fetched")


def test_a_store_that_overwrites_is_refused(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def overwrite(folder: Folder, name: str, data: bytes) -> bool:
        folder.write_bytes(name, data)
        return True

    monkeypatch.setattr(objects, "put_new", overwrite)
    with pytest.raises(NotKept, match="ignores If-None-Match"):
        log.begin()


def test_a_store_that_is_away_or_shut_says_so(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="cannot be written"):
        put_new(Folder("s3://no-such-bucket-here/live"), "1", b"x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="cannot be written"):
        put_new(Folder("s3://another-bucket/live"), "1", b"x")


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Root, who may write anywhere, is nobody for a while, in all threads; anybody else stays who they are."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_folder_that_may_only_be_read() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as shut:  # pytest's own folder lets nobody but its owner in
        os.chmod(shut, 0o555)
        with nobody(), pytest.raises(PermissionError):
            put_new(Folder.of(shut), "1", b"x")
        assert os.listdir(shut) == []


def test_an_object_is_emptied_when_the_base_is_on_the_disk_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(Folder.of(tmp_path) / "live", "gallery.db")
    log.begin()
    log.put_new(1, b"kept")
    (tmp_path / "tables").write_bytes(b"tables after 1")

    def die(file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", die)
        with pytest.raises(OSError, match="No space"):
            log.rebase(1, tmp_path / "tables")
    assert log.read(1) == b"kept" and log.newest_base() is None
    assert [path for path in (tmp_path / "live/base").rglob("*") if path.is_file()] == []
    log.rebase(1, tmp_path / "tables")
    assert log.read(1) == b"" and log.newest_base() == (1, "base/000000000001.db")
    assert (tmp_path / "live/base").stat().st_mode & 0o777 == 0o700


def test_what_killed_writers_left_on_a_disk_goes_with_what_it_was_of(tmp_path: Path) -> None:
    log = Log(Folder.of(tmp_path) / "live", "gallery.db")
    log.begin()
    log.put_new(1, b"first")
    (tmp_path / "live/base").mkdir()
    left = ["log/000000000001.tmp-dead", "log/000000000002.tmp-busy", "base/000000000001.db.tmp-dead"]
    for name in (*left, "tables"):
        (tmp_path / "live" / name).write_bytes(b"secret")
    log.rebase(1, tmp_path / "live/tables")
    assert [(tmp_path / "live" / name).exists() for name in left] == [False, True, False]


def test_half_of_an_object_is_never_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(OSError, match="No space"):
        put_new(Folder.of(tmp_path), "1", b"x")
    assert list(tmp_path.iterdir()) == []
