"""The receipt of a deletion says what is gone, what is not yet, and what is not ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.live.folding.erasure import erase
from retrieval.live.store import ReadOnly, Store
from retrieval.live.view import GalleryView
from tests.support.gallery import Sealed, new_image, sealed_gallery


@pytest.fixture
def made(tmp_path: Path) -> Sealed:
    return sealed_gallery(tmp_path)


def test_of_what_was_only_added_nothing_is_pending(made: Sealed) -> None:
    store = Store.open(made.workspace)
    view = GalleryView(made.pair, store)
    store.add([new_image("new.jpg", 1)], made.pair.model_fingerprint)
    told = erase(view, ["new.jpg"])
    assert (told["deleted"], told["pending"], told["live"]) == (["new.jpg"], [], 2)
    assert "crop" in told["removed"] and "embedding" in told["removed"]
    assert told["not_ours"] == ["snapshots and backups that were made before"]
    assert store.receipt(told["receipt_id"]) == told


def test_of_what_is_sealed_folders_are_pending_and_sources_are_not_ours(made: Sealed) -> None:
    view = GalleryView(made.pair, Store.open(made.workspace))
    told = erase(view, ["a/ada-000.jpg"])
    assert told["deleted"] == ["a/ada-000.jpg", "a/twin.jpg"]
    assert {one["what"] for one in told["pending"]} == {
        "collection/made", "embeddings/made", "index/made", "people/made"
    }  # fmt: skip
    assert any("photos that the collection was made of" in one for one in told["not_ours"])
    assert "crop" not in told["removed"]


def test_nothing_is_deleted_where_one_is_not_there_or_nothing_can_be_changed(made: Sealed) -> None:
    view = GalleryView(made.pair, Store.open(made.workspace))
    with pytest.raises(KeyError):
        erase(view, ["a/bob-001.jpg", "nobody"])
    assert view.refresh() == 0
    with pytest.raises(ReadOnly):
        erase(GalleryView(made.pair), ["a/bob-001.jpg"])
