"""From one moment to the next: what is taken in, what is hidden, and that a moment once read stays as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.node.rows import open_rows
from retrieval.live.columns import Columns
from retrieval.live.state import Changes
from retrieval.live.store import Store
from tests.support.gallery import Sealed, new_image, sealed_gallery
from tests.support.vectors import DIM


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    return sealed_gallery(tmp_path_factory.mktemp("state"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


@pytest.fixture
def changes(made: Sealed, store: Store) -> Changes:
    columns = Columns(open_rows(made.pair.index, made.pair.collection, made.pair.people))
    return Changes(columns, store, made.pair, DIM, None, "")


def test_a_moment_stays_as_it_was(made: Sealed, store: Store, changes: Changes) -> None:
    assert changes.take_in() is False and changes.state.seq == 0
    before = changes.state
    store.add([new_image("b", 1)], made.pair.model_fingerprint)
    store.add([new_image("a", 2)], made.pair.model_fingerprint)
    assert changes.take_in() is False  # nothing was deleted
    assert (before.entries, before.vectors.shape) == ([], (0, DIM))
    now = changes.state
    assert [one.image_id for one in now.entries] == ["a", "b"] and now.places == {"a": 0, "b": 1}
    assert now.vectors[1].tolist() == new_image("b", 1).vector.tolist()
    store.delete(["a", "a/ada-000.jpg"], {})
    assert changes.take_in() is True and changes.take_in() is False
    assert [one.image_id for one in changes.state.entries] == ["b"] and len(now.entries) == 2
    assert changes.state.hidden.tolist() == [changes._columns.row_of("a/ada-000.jpg")]


def test_nothing_new_is_the_same_moment(made: Sealed, store: Store, changes: Changes) -> None:
    store.add([new_image("a", 1)], made.pair.model_fingerprint)
    changes.take_in()
    now = changes.state
    store.keep_embeddings("other", {("a", 1): np.ones(DIM, np.float32)})  # committed, but no change
    changes.take_in()
    assert changes.state is now


def test_added_and_deleted_and_added_in_between_is_what_it_is_last(
    made: Sealed, store: Store, changes: Changes
) -> None:
    model = made.pair.model_fingerprint
    store.add([new_image("a", 1)], model)
    store.delete(["a"], {})
    store.add([new_image("a", 2)], model)
    store.add([new_image("b", 3)], model)
    store.delete(["b"], {})
    changes.take_in()
    assert [one.content_hash for one in changes.state.entries] == [new_image("a", 2).content_hash]


def test_what_this_model_cannot_embed_is_counted_and_said_once(
    made: Sealed, store: Store, changes: Changes, caplog: pytest.LogCaptureFixture
) -> None:
    store.add([new_image("a", 1)], "other")
    changes.take_in()
    assert (changes.left_out, changes.state.entries) == (1, [])
    store.add([new_image("b", 2)], made.pair.model_fingerprint)
    changes.take_in()
    assert (changes.left_out, len(changes.state.entries)) == (1, 1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
