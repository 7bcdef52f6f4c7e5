"""What a log begins with: its base, without what was erased; hosts that slept, and logs that are others or damaged."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.live.store import Store
from tests.support.gallery import new_image
from tests.support.hosts import Host, log_of, names
from tests.support.waiting import until
from tests.support.writers import MODEL


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
