"""What is served is kept as it was at one moment, found whole, and put back."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.published import PREVIOUS, go_to, history
from retrieval.live.snapshots import snapshot
from retrieval.live.snapshots.snapshot import check, restore, snapshots, take
from retrieval.live.store import ReadOnly, Store
from tests.support.fake_jobs import sealed
from tests.support.gallery import new_image
from tests.unit.artifacts.test_published import make, publish

MODEL = "m" * 64


@pytest.fixture
def workspace(tmp_path: Path) -> Folder:
    """Two versions, the second current; no changes yet."""
    folder = Folder.of(tmp_path / "w")
    for number in (1, 2):
        publish(folder, **make(tmp_path / "w", number))
    return folder


def ids(workspace: Folder) -> list[str]:
    store = Store.open(workspace)
    try:
        return sorted(row.entry.image_id for row in store.changed(0, MODEL).rows)
    finally:
        store.close()


def add(workspace: Folder, *names: str) -> None:
    store = Store.open(workspace)
    for name in names:
        assert store.add([new_image(name, len(name))], MODEL)[0] == "added"
    store.close()


def test_a_snapshot_is_put_back_with_its_version_and_its_changes(workspace: Folder) -> None:
    add(workspace, "a", "bb")
    first, version = take(workspace), history(workspace)[0].version
    add(workspace, "ccc")
    go_to(workspace, PREVIOUS)
    assert check(workspace, first.name).version == version
    assert read_manifest(workspace / first.path).counts == {"changes": 2}
    kept = restore(workspace, first.name)
    assert ids(workspace) == ["a", "bb"] and history(workspace)[0].version == version
    assert [one.name for one in snapshots(workspace)] == [first.name, kept.name]
    restore(workspace, kept.name)
    assert ids(workspace) == ["a", "bb", "ccc"] and history(workspace)[0].version != version
    add(workspace, "dddd")
    assert ids(workspace) == ["a", "bb", "ccc", "dddd"], "the store goes on from there"
    assert (Path(workspace.path) / "snapshots").stat().st_mode & 0o077 == 0


def test_what_sqlite_left_beside_the_old_file_is_not_taken_for_a_part_of_the_new_one(workspace: Folder) -> None:
    add(workspace, "a")
    one = take(workspace)
    for beside in ("-wal", "-shm", "-journal"):
        (Path(workspace.path) / f"live/gallery.db{beside}").write_bytes(b"of another file")
    (Path(workspace.path) / "live/gallery.db-journal").write_bytes(b"")
    restore(workspace, one.name)
    assert not (Path(workspace.path) / "live/gallery.db-wal").exists() and ids(workspace) == ["a"]


def test_one_moment_is_kept_while_others_write(workspace: Folder) -> None:
    """Each snapshot holds every change up to one and none after, whoever writes meanwhile."""
    store, stop = Store.open(workspace), threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            store.add([new_image(f"{number:05d}", number)], MODEL)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        taken = [take(workspace, store) for _ in range(4)]
    finally:
        stop.set()
        writer.join()
    for one in taken:
        restore(workspace, one.name)
        found = ids(workspace)
        assert found == [f"{number:05d}" for number in range(len(found))]
    store.close()


@pytest.mark.parametrize("file", ["gallery.db", "CURRENT.json"])
def test_a_damaged_snapshot_is_found_and_nothing_is_changed(workspace: Folder, file: str) -> None:
    add(workspace, "a")
    one = take(workspace)
    add(workspace, "bb")
    path = Path(workspace.path) / one.path / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=f"{file} is not the file that was sealed"):
        restore(workspace, one.name)
    assert ids(workspace) == ["a", "bb"] and len(snapshots(workspace)) == 1


def test_what_cannot_be_put_back_is_said(workspace: Folder) -> None:
    one = take(workspace)
    with pytest.raises(ValueError, match=f"has no snapshot 'never'. It has: {one.name}"):
        check(workspace, "never")
    with pytest.raises(ValueError, match="has no snapshot"):
        check(workspace, "../snapshots/" + one.name)
    index = Path(workspace.path) / history(workspace)[0].paths["index"]
    index.rename(index.with_name("gone"))
    with pytest.raises(ValueError, match="No sealed index"):
        restore(workspace, one.name)
    sealed(index, "index", "another")
    with pytest.raises(ValueError, match="was replaced since the snapshot was taken"):
        restore(workspace, one.name)


def test_one_that_was_cut_short_is_none(workspace: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "seal", die)
        with pytest.raises(OSError, match="No space"):
            take(workspace)
    assert snapshots(workspace) == []


def test_an_object_store_has_no_changes_to_keep(monkeypatch: pytest.MonkeyPatch, workspace: Folder) -> None:
    monkeypatch.setattr(Folder, "is_local", property(lambda folder: False))
    with pytest.raises(ReadOnly, match="in an object store"):
        take(workspace)
