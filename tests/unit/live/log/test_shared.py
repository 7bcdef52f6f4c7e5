"""Hosts that share a gallery agree on every change, whoever is first, late or one of many."""

from __future__ import annotations

import os
import sqlite3
import threading
import time

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.live.log import objects, shared
from retrieval.live.log.coding import decode
from tests.support.gallery import new_image
from tests.support.hosts import Host, log_of, names
from tests.support.waiting import MOST_S, until
from tests.support.writers import MODEL, drawn


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
    until(lambda: other.unseen_s() < 30)  # a look is over a moment after what it took in is there


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
