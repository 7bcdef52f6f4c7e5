"""A host that is cut off, may only read or hears no answer acknowledges nothing that the log does not hold."""

from __future__ import annotations

import logging

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.live.log import objects
from retrieval.live.log.objects import Log
from retrieval.live.store import ReadOnly, Store
from tests.support.gallery import new_image
from tests.support.hosts import Host, log_of, names
from tests.support.waiting import until
from tests.support.writers import MODEL


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
