"""Which folders hold an image."""

from __future__ import annotations

from pathlib import Path

from retrieval.live.folding.holders import collections_with, copies_of, holders, sealed_folders
from tests.support.gallery import sealed_gallery


def test_the_collection_and_what_was_made_of_it(tmp_path: Path) -> None:
    made = sealed_gallery(tmp_path)
    kinds = ["collection", "embeddings", "index", "people"]
    assert [folder.uri for folder in holders(made.workspace, ["a/ada-000.jpg"])] == [
        (made.workspace / kind / "made").uri for kind in kinds
    ]
    assert holders(made.workspace, ["nobody.jpg"]) == [] == holders(made.workspace, [])
    assert collections_with(made.workspace, ["a/twin.jpg"]) == {made.pair.collection: made.pair.collection_fingerprint}


def test_copies_are_those_of_the_catalog(tmp_path: Path) -> None:
    made = sealed_gallery(tmp_path)
    assert copies_of(made.pair.collection, ["a/ada-000.jpg", "a/bob-001.jpg"]) == ["a/twin.jpg"]
    assert copies_of(made.pair.collection, ["a/twin.jpg"]) == []


def test_only_what_is_sealed_is_looked_at(tmp_path: Path) -> None:
    made = sealed_gallery(tmp_path)
    (tmp_path / "collection/half").mkdir()
    (tmp_path / "collection/half/started.json").write_text("{}")
    assert list(sealed_folders(made.workspace, "collection")) == [made.pair.collection]
    assert sealed_folders(made.workspace, "nothing") == {}
