"""Every change is on disk when it is acknowledged, whole or not at all; what was erased is in no byte of the file."""

from __future__ import annotations

import multiprocessing
import sqlite3
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from retrieval.live.store import Store
from tests.support.gallery import new_image
from tests.support.writers import add_some

MODEL = "m" * 64


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((folder / "live").iterdir()))


def middle(data: bytes) -> bytes:
    """Bytes that no other picture has: tables come first in a JPEG, and are the same in all."""
    return data[len(data) // 2 : len(data) // 2 + 60]


def test_what_is_added_is_read_back_as_it_was(store: Store) -> None:
    about = {"label": "ada", "attributes": {"hat": 1}, "face": 0, "prepared": "so"}
    seen = {"box": [1.5, 2, 30, 40], "points": list(range(10)), "quality": {"confidence": 0.5, "turn": None}}
    image = new_image("p.jpg#0", 1, photo="p.jpg", **about, **seen)
    assert store.add([image], MODEL, original=b"the photo") == ("added", 1)
    (row,) = store.changed(0, MODEL).rows
    entry = row.entry
    assert (entry.image_id, entry.photo, entry.face, entry.label) == ("p.jpg#0", "p.jpg", 0, "ada")
    assert (entry.attributes, entry.where, entry.seq, entry.original) == ({"hat": 1}, "live", 1, True)
    assert (entry.width, entry.height, entry.split) == (48, 48, "gallery") and entry.added is not None
    assert (row.box, row.points, row.quality, row.prepared) == (*seen.values(), "so")
    assert row.vector is not None and row.vector.tolist() == image.vector.tolist()
    assert store.jpeg("p.jpg#0") == image.jpeg and store.original("p.jpg") == b"the photo"
    assert store.jpeg("p.jpg") is None and store.original("p.jpg#0") is None


def test_the_same_photo_again_changes_nothing_and_another_is_a_conflict(store: Store) -> None:
    first, other = new_image("p", 1), new_image("p", 2)
    assert store.add([first], MODEL) == ("added", 1)
    assert store.add([first], MODEL) == ("same", 1)
    assert store.add([other], MODEL) == ("conflict", 1)
    assert store.jpeg("p") == first.jpeg
    assert store.add([other], MODEL, replace=True) == ("added", 2)
    assert store.jpeg("p") == other.jpeg and len(store.changed(0, MODEL).rows) == 1
    # An image of another photo has this name.
    assert store.add([new_image("q", 3), new_image("p", 3, photo="q")], MODEL)[0] == "conflict"
    assert store.jpeg("q") is None


def test_a_photo_that_is_replaced_leaves_no_face_behind(store: Store) -> None:
    store.add([new_image(f"g#{face}", face, photo="g", face=face) for face in range(3)], MODEL)
    store.add([new_image("g#0", 7, photo="g", face=0)], MODEL, replace=True, instead_of=["g#5"])
    changed = store.changed(0, MODEL)
    assert [row.entry.image_id for row in changed.rows] == ["g#0"]
    assert sorted(changed.deleted) == [("g#1", 2), ("g#2", 2), ("g#5", 2)]


def test_a_deletion_is_remembered_with_its_receipt(store: Store) -> None:
    store.add([new_image("p", 1)], MODEL, original=b"kept")
    told = store.delete(["p", "sealed.jpg"], {"removed": ["crop"]})
    assert (told["deleted"], told["live"], told["removed"]) == (["p", "sealed.jpg"], 2, ["crop"])
    assert store.receipt(told["receipt_id"]) == told and store.receipt("r-0") is None
    changed = store.changed(1, MODEL)
    assert (changed.rows, sorted(changed.deleted), changed.seq) == ([], [("p", 2), ("sealed.jpg", 2)], 2)
    assert store.jpeg("p") is None and store.original("p") is None
    store.add([new_image("p", 3)], MODEL)
    assert [name for name, _ in store.changed(0, MODEL).deleted] == ["sealed.jpg"]


def test_what_was_erased_is_in_no_byte_of_the_store(store: Store, tmp_path: Path) -> None:
    kept, erased = new_image("kept", 1), new_image("erased", 2)
    original = bytes(np.random.default_rng(3).integers(0, 256, 100_000, dtype=np.uint8))
    store.add([kept], MODEL)
    store.add([erased], MODEL, original=original)
    needles = (middle(erased.jpeg), erased.vector.tobytes()[:60], original[50_000:50_060])
    before = bytes_of(tmp_path)
    assert all(needle in before for needle in needles)
    store.delete(["erased"], {})
    after = bytes_of(tmp_path)
    assert not any(needle in after for needle in needles)
    assert middle(kept.jpeg) in after


def test_embeddings_of_another_model_come_later(store: Store) -> None:
    image = new_image("p", 1)
    store.add([image], MODEL)
    other = "n" * 64
    (row,) = store.changed(0, other).rows
    assert row.vector is None
    store.keep_embeddings(other, {("p", 1): -image.vector, ("gone", 1): image.vector})
    assert store.changed(0, other).rows[0].vector is not None
    store.add([new_image("p", 2)], MODEL, replace=True)
    store.keep_embeddings(other, {("p", 1): -image.vector})  # of the photo that was replaced
    assert store.changed(0, other).rows[0].vector is None


def test_people_folds_and_what_they_let_go(store: Store) -> None:
    store.edit_people("merge", {"person": 2, "into": 1})
    store.edit_people("name", {"person": 1, "name": "Ada"})
    told = store.changed(0, MODEL).edits
    assert [(one["kind"], one["seq"]) for one in told] == [("merge", 1), ("name", 2)]
    assert store.changed(1, MODEL).edits == told[1:]
    store.add([new_image("p", 1)], MODEL)
    store.add([new_image("q", 2)], MODEL)
    assert store.folded("c" * 64) == 0
    store.note_fold("c" * 64, 3)
    assert store.folded("c" * 64) == 3
    assert store.forget_before(3) == 1
    assert [row.entry.image_id for row in store.changed(0, MODEL).rows] == ["q"]
    assert store.changed(0, MODEL).deleted == []


def test_a_change_is_seen_by_who_watches_whoever_makes_it(store: Store, tmp_path: Path) -> None:
    watch = store.watch()
    seen = watch()
    assert watch() == seen
    store.add([new_image("p", 1)], MODEL)  # by this very object
    assert watch() != seen
    seen = watch()
    Store.open(str(tmp_path)).delete(["p"], {})
    assert watch() != seen


def test_a_change_that_fails_leaves_nothing(store: Store) -> None:
    broken = new_image("q", 2, width=None)
    with pytest.raises(sqlite3.IntegrityError):
        store.add([new_image("p", 1), broken], MODEL)
    assert store.seq() == 0 and store.changed(0, MODEL).rows == []


def test_processes_and_threads_write_at_once_and_lose_nothing(store: Store, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=add_some, args=(str(tmp_path), who, 10)) for who in range(2)]
    threads = [threading.Thread(target=add_some, args=(str(tmp_path), who, 10)) for who in (2, 3)]
    for one in [*processes, *threads]:
        one.start()
    for one in [*processes, *threads]:
        one.join()
    assert store.seq() == 40
    rows = store.changed(0, MODEL).rows
    assert {row.entry.image_id for row in rows} == {f"{who}-{number}" for who in range(4) for number in range(10)}
    assert sorted(row.entry.seq for row in rows) == list(range(1, 41))


def test_a_copy_is_whole(store: Store, tmp_path: Path) -> None:
    store.add([new_image("p", 1)], MODEL)
    (tmp_path / "copy").mkdir()
    store.backup(tmp_path / "copy/gallery.db")
    assert Store(tmp_path / "copy/gallery.db").jpeg("p") == store.jpeg("p")


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    (tmp_path / "live/gallery.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(ValueError, match="cannot be opened"):
        Store.open(str(tmp_path))
    later = Store(tmp_path / "later.db")
    with sqlite3.connect(tmp_path / "later.db") as db:
        db.execute("PRAGMA user_version = 9")
    later.close()
    with pytest.raises(ValueError, match="version 9, expected 1"):
        Store(tmp_path / "later.db")


NAMES = ("a", "b", "c", "d#0")


class Model(RuleBasedStateMachine):
    """The store against a dict, by whatever is added, replaced, deleted, reopened."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store.open(self.folder.name)
        self.there: dict[str, int] = {}
        self.gone: set[str] = set()
        self.seq = 0

    @rule(name=st.sampled_from(NAMES), seed=st.integers(0, 3), replace=st.booleans())
    def add(self, name: str, seed: int, replace: bool) -> None:
        status, seq = self.store.add([new_image(name, seed)], MODEL, replace=replace)
        if name in self.there and not replace:
            assert (status, seq) == ("same" if self.there[name] == seed else "conflict", self.seq)
            return
        assert (status, seq) == ("added", self.seq + 1)
        self.there[name], self.seq = seed, seq
        self.gone.discard(name)

    @rule(names=st.sets(st.sampled_from((*NAMES, "sealed")), min_size=1))
    def delete(self, names: set[str]) -> None:
        self.seq += 1
        assert self.store.delete(sorted(names), {})["live"] == self.seq
        self.there = {name: seed for name, seed in self.there.items() if name not in names}
        self.gone |= names

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = Store.open(self.folder.name)

    @invariant()
    def agrees(self) -> None:
        changed = self.store.changed(0, MODEL)
        assert changed.seq == self.seq
        assert {name for name, _ in changed.deleted} == self.gone
        assert {row.entry.image_id: row.entry.content_hash for row in changed.rows} == {
            name: new_image(name, seed).content_hash for name, seed in self.there.items()
        }

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


Model.TestCase.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
test_the_store_against_a_dict = Model.TestCase
