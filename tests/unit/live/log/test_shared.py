"""Hosts that share a gallery agree on every change, whoever is first, asleep, cut off or new."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.live.log import objects, shared
from retrieval.live.log.coding import decode
from retrieval.live.log.objects import Log
from retrieval.live.store import ReadOnly, Store
from tests.support.gallery import new_image
from tests.support.object_store import ObjectStore
from tests.support.waiting import MOST_S, until
from tests.support.writers import MODEL, drawn

Host = Callable[[str], Store]


@pytest.fixture(params=["disk", "s3"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "s3":
        store: ObjectStore = request.getfixturevalue("s3")
        return Folder(store.bucket()) / "w"
    return on_disk(tmp_path)


def on_disk(tmp_path: Path) -> Folder:
    (tmp_path / "w/live/log").mkdir(parents=True)
    return Folder.of(tmp_path / "w")


@pytest.fixture
def disk(tmp_path: Path) -> Folder:
    return on_disk(tmp_path)


@pytest.fixture
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """A host by its name, with a disk of its own; it may be opened again."""
    place = request.getfixturevalue("workspace" if "workspace" in request.fixturenames else "disk")
    opened: list[Store] = []

    def open_it(name: str) -> Store:
        opened.append(Store.open(place, tmp_path / "hosts" / name))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


def names(store: Store) -> set[str]:
    return {row.entry.image_id for row in store.changed(0, MODEL).rows}


def log_of(workspace: Folder) -> Log:
    return Log(workspace / "live", "gallery.db")


def test_what_one_host_changes_the_other_sees_and_reckons_with(workspace: Folder, host: Host) -> None:
    one, other = host("one"), host("other")
    assert one.is_shared and one.unseen_s() < 30
    assert one.add([new_image("p", 1)], MODEL, original=b"photo") == ("added", 1)
    # The other has not looked yet, or has: it may not answer from what it knew.
    assert other.add([new_image("p", 1)], MODEL) == ("same", 1)
    assert other.add([new_image("p", 2)], MODEL) == ("conflict", 1)
    assert other.add([new_image("q", 2)], MODEL) == ("added", 2)
    until(lambda: one.seq() == 2)
    receipt = one.delete(["p"], {"removed": []})
    assert one.edit_people("name", {"person": 1, "name": "Ada"}) == 4
    until(lambda: other.seq() == 4)
    assert names(one) == names(other) == {"q"} and other.receipt(receipt["receipt_id"]) == receipt
    assert one.edits() == other.edits() and other.original("p") is None
    assert one.changed(0, MODEL) == other.changed(0, MODEL)


def test_a_clock_that_was_put_back_ends_no_following(disk: Folder, host: Host) -> None:
    one, other = host("one"), host("other")
    assert other._shared is not None
    ahead = time.time() + 3600
    os.utime(other._shared._looked, (ahead, ahead))
    one.add([new_image("p", 1)], MODEL)
    until(lambda: names(other) == {"p"})
    assert other.unseen_s() < 30


def test_that_a_photo_is_there_is_not_said_of_what_a_host_knew(
    disk: Folder, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "FOLLOW_S", 3600.0)
    one = host("one")
    one.add([new_image("p", 1)], MODEL)
    other = host("other")
    one.delete(["p"], {})
    assert names(other) == {"p"}, "it has not looked since"
    assert other.add([new_image("p", 1)], MODEL) == ("added", 3)


def test_threads_of_two_hosts_write_at_once_and_lose_nothing(workspace: Folder, host: Host) -> None:
    hosts = [host("one"), host("other")]

    def work(who: int) -> None:
        for number in range(4):
            assert hosts[who % 2].add([drawn(f"{who}-{number}", 10 * who + number)], MODEL)[0] == "added"

    threads = [threading.Thread(target=work, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: all(store.seq() == 24 for store in hosts))
    assert names(hosts[0]) == {f"{who}-{number}" for who in range(6) for number in range(4)}
    assert hosts[0].changed(0, MODEL) == hosts[1].changed(0, MODEL)


def test_who_writes_all_the_time_and_knows_of_nobody_lets_another_in(
    disk: Folder, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, over = host("one"), host("other"), threading.Event()
    real = objects.put_new

    def put_new(folder: Folder, name: str, data: bytes) -> bool:
        if threading.current_thread() is threading.main_thread():
            time.sleep(0.05)  # the other is far from the store, and always second while the first goes on
        return real(folder, name, data)

    monkeypatch.setattr(objects, "put_new", put_new)

    def work() -> None:
        while not over.is_set():
            one.add([drawn("p", one.seq())], MODEL, replace=True)

    writer = threading.Thread(target=work)
    writer.start()
    try:
        until(lambda: one.seq() > 3)
        assert other.add([drawn("q", 1)], MODEL)[0] == "added"
    finally:
        over.set()
        writer.join()


def test_changes_that_wait_go_together(disk: Folder, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    store, go, real = host("one"), threading.Event(), objects.put_new

    def slow(folder: Folder, name: str, data: bytes) -> bool:
        assert go.wait(MOST_S)
        return real(folder, name, data)

    monkeypatch.setattr(objects, "put_new", slow)
    told: list[str] = []
    failed: list[Exception] = []

    def add(name: str, width: int | None) -> None:
        try:
            told.append(store.add([new_image(name, 1, width=width)], MODEL)[0])
        except sqlite3.IntegrityError as error:
            failed.append(error)

    sizes = [1, 2, None, 4, 5]
    threads = [threading.Thread(target=add, args=(f"p{num}", size)) for num, size in enumerate(sizes)]
    for thread in threads:
        thread.start()
    until(lambda: store._shared is not None and len(store._shared._waiting) == 4)
    assert names(store) == set(), "readers read on, and see nothing that is not in the log"
    go.set()
    for thread in threads:
        thread.join()
    assert told == ["added"] * 4 and len(failed) == 1, "one that fails leaves the others alone"
    assert names(store) == {"p0", "p1", "p3", "p4"}
    assert host("other").changed(0, MODEL) == store.changed(0, MODEL) and store.seq() == 4
    full = [data for data in map(log_of(disk).read, range(1, 9)) if data]
    assert sum(len(decode(data).operations) for data in full) == 4 and len(full) <= 2


def test_embeddings_of_a_whole_gallery_are_many_changes(
    disk: Folder, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.live.store._TOGETHER", 2)
    store = host("one")
    for number in range(5):
        store.add([new_image(f"p{number}", number)], MODEL)
    made = {(row.entry.image_id, row.entry.seq): row.vector for row in store.changed(0, MODEL).rows}
    store.keep_embeddings("another", made)  # type: ignore[arg-type]
    put = [decode(log_of(disk).read(number) or b"").operations for number in (6, 7, 8)]
    assert [len(one.told["vectors"]) for (one,) in put] == [2, 2, 1] and log_of(disk).read(9) is None
    assert all(row.vector is not None for row in host("other").changed(0, "another").rows)


def test_an_answer_that_was_lost_is_not_a_second_change(
    disk: Folder, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, real = host("one"), objects.put_new

    def put_twice(folder: Folder, name: str, data: bytes) -> bool:
        assert real(folder, name, data)
        return real(folder, name, data)

    monkeypatch.setattr(objects, "put_new", put_twice)
    assert store.edit_people("name", {"person": 1, "name": "Ada"}) == 1
    assert store.seq() == 1 and len(store.edits()) == 1 and log_of(disk).read(2) is None


@pytest.mark.parametrize("arrives", [True, False])
def test_what_nobody_knows_of_is_not_acknowledged(
    disk: Folder, host: Host, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    store, real = host("one"), objects.put_new

    def cut_off(folder: Folder, name: str, data: bytes) -> bool:
        if arrives:
            real(folder, name, data)
        raise OSError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(objects, "put_new", cut_off)
        with pytest.raises(OSError, match="no route"):
            store.add([new_image("p", 1)], MODEL)
    assert store.add([new_image("p", 1)], MODEL)[0] == ("same" if arrives else "added")
    assert host("other").changed(0, MODEL) == store.changed(0, MODEL)


def test_a_host_that_may_only_read_follows(disk: Folder, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def shut(folder: Folder, name: str, data: bytes) -> bool:
        raise PermissionError("no")

    with monkeypatch.context() as patch:
        patch.setattr(objects, "put_new", shut)
        with pytest.raises(ReadOnly, match="cannot be changed"):
            host("one")
        assert Store.open_if_possible(disk) is None
    host("one").add([new_image("p", 1)], MODEL)
    monkeypatch.setattr(objects, "put_new", shut)
    other = host("other")
    assert names(other) == {"p"}
    with pytest.raises(ReadOnly, match="no"):
        other.delete(["p"], {})
    assert names(other) == {"p"}


def test_where_a_store_overwrites_nothing_can_be_changed(disk: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def overwrite(folder: Folder, name: str, data: bytes) -> bool:
        folder.write_bytes(name, data)
        return True

    monkeypatch.setattr(objects, "put_new", overwrite)
    for _ in range(2):  # also where there is a log, which somebody began through a store that keeps
        with pytest.raises(ReadOnly, match="ignores If-None-Match"):
            Store.open(disk)
    assert Store.open_if_possible(disk) is None


def test_what_was_erased_is_nowhere_and_sleepers_wake_up(workspace: Folder, host: Host, tmp_path: Path) -> None:
    asleep = host("asleep")
    one = host("one")
    gone, stays = new_image("gone", 1), new_image("stays", 2)
    one.add([gone], MODEL, original=b"the original of who is erased")
    asleep.close()  # it may have seen who will be erased
    one.add([stays], MODEL)
    one.delete(["gone"], {})
    assert secrets_in(everything(workspace), gone)
    one.compact_log()
    assert not secrets_in(everything(workspace), gone)
    assert names(host("asleep")) == names(host("new")) == {"stays"}
    late = host("asleep")
    assert late.add([new_image("after", 3)], MODEL) == ("added", 4)
    until(lambda: names(one) == {"stays", "after"})
    one.compact_log()
    one.compact_log()  # nothing is left to do
    assert host("newer").changed(0, MODEL) == one.changed(0, MODEL)
    for store in (one, late):
        store.close()
    on_disks = b"".join(path.read_bytes() for path in (tmp_path / "hosts").rglob("*") if path.is_file())
    assert not secrets_in(on_disks, gone) and stays.jpeg in on_disks


def everything(workspace: Folder) -> bytes:
    return b"".join(workspace.read_bytes(name) for name in workspace.list())


def test_what_a_killed_process_left_of_a_base_on_a_host_goes(disk: Folder, host: Host) -> None:
    one = host("one")
    left = Path(f"{one._db.path}.base")
    left.mkdir()
    (left / "base.db").write_bytes(b"who was erased since")
    (left / "base.db-journal").write_bytes(b"half of it")
    host("one")
    assert not left.exists()


def secrets_in(data: bytes, image: object) -> bool:
    """As they are, or as base64 says them, wherever that begins."""
    import base64

    vector, jpeg = image.vector.tobytes(), image.jpeg  # type: ignore[attr-defined]
    pieces = [jpeg[len(jpeg) // 2 :][:60], vector[20:80], b"the original of who is erased"]
    return any(
        piece in data or any(base64.b64encode(piece[start:])[4:-4] in data for start in range(3)) for piece in pieces
    )


def test_changes_of_one_host_are_the_beginning_of_the_log(tmp_path: Path) -> None:
    alone = Store.open(str(tmp_path / "w"))
    alone.add([new_image("p", 1)], MODEL)
    alone.close()
    (tmp_path / "w/live/log").mkdir()
    store = Store.open(str(tmp_path / "w"), tmp_path / "host")
    assert names(store) == {"p"} and store.add([new_image("q", 2)], MODEL) == ("added", 2)
    store.compact_log()
    assert not (tmp_path / "w/live/gallery.db").exists()
    store.close()


def test_another_log_in_the_same_place_is_not_mixed_with_the_old(disk: Folder, host: Host, tmp_path: Path) -> None:
    host("one").add([image := new_image("p", 1)], MODEL)
    for name in log_of(disk).folder.list():
        log_of(disk).folder.remove(name)
    assert names(host("one")) == set()
    assert image.jpeg not in b"".join(file.read_bytes() for file in (tmp_path / "hosts").rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("number", "data", "complaint"),
    [(2, b"{}", "cannot be read"), (2, b"", "lost the base")],
)
def test_a_damaged_log_is_refused(disk: Folder, host: Host, number: int, data: bytes, complaint: str) -> None:
    host("one").add([new_image("p", 1)], MODEL)
    log_of(disk).folder.write_bytes(f"{number:012d}", data)
    with pytest.raises(ValueError, match=complaint):
        host("other")


def test_a_base_of_another_release_is_refused(disk: Folder, host: Host, tmp_path: Path) -> None:
    one = host("one")
    one.add([new_image("p", 1)], MODEL)
    one.backup(tmp_path / "tables")
    with sqlite3.connect(tmp_path / "tables") as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    log_of(disk).rebase(1, tmp_path / "tables")
    with pytest.raises(ValueError, match="version 9, expected 1"):
        host("other")


def test_a_log_that_is_away_is_said_once_and_taken_up_again(
    disk: Folder, host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, real = host("one"), Log.read
    asked: list[int] = []

    def away(log: Log, number: int) -> bytes | None:
        asked.append(number)
        raise OSError("gone")

    with caplog.at_level(logging.WARNING), monkeypatch.context() as patch:
        patch.setattr(Log, "read", away)
        until(lambda: len(asked) >= 2)
        assert names(store) == set(), "it answers from what it knows"
    assert [record.message for record in caplog.records if "not seen just now" in record.message] != []
    assert len(caplog.records) == 1
    assert real is Log.read
    host("other").add([new_image("p", 1)], MODEL)
    until(lambda: names(store) == {"p"})
