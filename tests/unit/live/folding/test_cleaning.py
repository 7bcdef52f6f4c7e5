"""After a folding no byte of an erased photo is left in the workspace; what is served stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.live.folding.cleaning import remove, to_remove
from retrieval.live.folding.erasure import erase
from retrieval.live.folding.plan import plan_fold
from retrieval.live.folding.seal import begin_collection
from retrieval.live.store import Store
from retrieval.live.view import GalleryView
from tests.support.folding import bytes_below, fold, write_parts
from tests.support.gallery import Sealed, new_image, sealed_gallery


@pytest.fixture
def made(tmp_path: Path) -> Sealed:
    return sealed_gallery(tmp_path)


def middle(data: bytes) -> bytes:
    return data[len(data) // 2 : len(data) // 2 + 60]


def test_no_byte_of_a_crop_or_an_embedding_is_left(made: Sealed) -> None:
    store = Store.open(made.workspace)
    model = made.pair.model_fingerprint
    fresh = new_image("new.jpg", 1)
    store.add([fresh], model, original=b"an original photo " * 100)
    view = GalleryView(made.pair, store)
    sealed = "a/ada-000.jpg"  # of which a copy, a/twin.jpg, is stored but not indexed
    needles = {
        "sealed crop": middle(made.crops[sealed]),
        "sealed embedding": made.vectors[sealed].tobytes(),
        "live crop": middle(fresh.jpeg),
        "live embedding": fresh.vector.tobytes(),
        "original": b"an original photo an original photo",
    }
    before = bytes_below(made.workspace)
    assert all(needle in before for needle in needles.values())
    assert before.count(needles["sealed crop"]) == 2
    receipt = erase(view, [sealed, "new.jpg"])
    assert receipt["deleted"] == sorted([sealed, "a/twin.jpg", "new.jpg"])
    now = bytes_below(made.workspace)
    assert [name for name, needle in needles.items() if needle in now] == ["sealed crop", "sealed embedding"]
    _, _, pair = fold(made.pair, store)
    served = [pair.collection, pair.model, pair.index]
    gone = to_remove(made.workspace, receipt["deleted"], served)
    told = {one["what"] for one in receipt["pending"]}
    assert {folder.uri.removeprefix(made.workspace.uri + "/") for folder in gone} == told
    assert told == {"collection/made", "embeddings/made", "index/made", "people/made"}
    remove(gone)
    after = bytes_below(made.workspace)
    assert [name for name, needle in needles.items() if needle in after] == []
    assert len(GalleryView(pair, store)) == 39
    kept = next(name for name in made.crops if name != sealed)
    assert middle(made.crops[kept]) in after
    assert to_remove(made.workspace, receipt["deleted"], served) == []


def test_what_another_folding_left_unfinished_goes_too(made: Sealed) -> None:
    store = Store.open(made.workspace)
    store.delete(["a/bob-001.jpg"], {})
    half = plan_fold(made.pair, store)
    begin_collection(half)
    write_parts(half, store)
    store.delete(["a/ada-000.jpg"], {})
    _, _, pair = fold(made.pair, store)
    gone = to_remove(made.workspace, ["a/ada-000.jpg"], [pair.collection, pair.index])
    assert half.collection in gone and half.vectors in gone


def test_what_is_served_is_never_removed(made: Sealed) -> None:
    with pytest.raises(ValueError, match="is served and holds images that were erased"):
        to_remove(made.workspace, ["a/ada-000.jpg"], [made.pair.collection])
    assert to_remove(made.workspace, ["nobody"], [made.pair.collection]) == []
