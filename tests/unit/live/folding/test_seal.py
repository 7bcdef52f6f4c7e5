"""The new gallery is the old one with its changes, sealed with books that balance."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from retrieval.artifacts.collection import REJECTED_SCHEMA, read_catalog
from retrieval.artifacts.embeddings import REJECTED, left_out, read_parts
from retrieval.artifacts.manifest import read_manifest
from retrieval.live.folding import seal
from retrieval.live.folding.plan import plan_fold
from retrieval.live.people import SPLIT_FROM
from retrieval.live.store import Store
from retrieval.live.view import GalleryView
from tests.support.folding import fold, write_parts
from tests.support.gallery import Sealed, new_image, sealed_gallery
from tests.support.vectors import clustered


@pytest.fixture
def made(tmp_path: Path) -> Sealed:
    return sealed_gallery(tmp_path, people=False)


@pytest.fixture
def store(made: Sealed) -> Store:
    """Three photos added, one of them with two faces; two sealed ones deleted, one replaced; one added and deleted."""
    store, model = Store.open(made.workspace), made.pair.model_fingerprint
    store.add([new_image("new.jpg", 1, label="eve", attributes={"Male": -1})], model, original=b"o")
    store.add([new_image(f"two.jpg#{face}", 10 + face, photo="two.jpg", face=face) for face in range(2)], model)
    store.add([new_image("c/cleo-002.jpg", 20)], model)
    store.add([new_image("gone.jpg", 30)], model)
    store.delete(["gone.jpg", "a/ada-000.jpg", "a/dan-003.jpg"], {})
    return store


def test_the_new_gallery_answers_as_the_old_one_with_its_changes(made: Sealed, store: Store) -> None:
    queries = clustered(5, seed=3)
    old = GalleryView(made.pair, store)
    before, entries = old.search(queries, 60), old.entries(None, 100)[0]
    plan, _, pair = fold(made.pair, store)
    assert (len(plan.added), plan.deleted, plan.replaced) == (
        4, {"a/ada-000.jpg", "a/dan-003.jpg", "a/twin.jpg"}, {"c/cleo-002.jpg"}
    )  # fmt: skip
    new = GalleryView(pair, store)
    assert len(new) == len(old) and not new._state.entries and not len(new._state.hidden)
    for one, other in zip(before, new.search(queries, 60), strict=True):
        assert [(hit.image_id, hit.label, hit.added) for hit in one] == [
            (hit.image_id, hit.label, hit.added) for hit in other
        ]
    for told, now in zip(entries, new.entries(None, 100)[0], strict=True):
        assert (told.image_id, told.label, told.photo, told.face, told.content_hash) == (
            now.image_id, now.label, now.photo, now.face, now.content_hash
        )  # fmt: skip
        assert now.where == "sealed" and new.jpeg(now.image_id) == old.jpeg(now.image_id)
        assert new.vector(now.image_id).tolist() == old.vector(now.image_id).tolist()
    assert (new.entry("new.jpg").attributes or {})["Male"] == -1
    assert len(GalleryView(made.pair, store)) == len(old)  # the old one, gone back to, is as it was
    store.add([new_image("later.jpg", 40)], made.pair.model_fingerprint)
    assert len(new) == len(old) == len(GalleryView(pair, store))
    fold_again = plan_fold(pair, store)
    assert ([one.entry.image_id for one in fold_again.added], fold_again.out_of) == (["later.jpg"], frozenset())


def test_books_balance_and_fingerprints_are_of_each_other(made: Sealed, store: Store) -> None:
    plan, manifest, pair = fold(made.pair, store)
    books = {book["stage"]: book for book in manifest.books}
    assert (books["fold"]["taken"], books["fold"]["kept"]) == (45, 41)
    assert books["fold"]["rejected"] == {"deleted": 3, "replaced": 1}
    assert books["split"] == {"stage": "split", "taken": 41, "kept": 41, "rejected": {}}
    assert (manifest.counts["stored"], manifest.counts["dropped"], manifest.counts["duplicates"]) == (41, 0, 0)
    assert manifest.inputs["folded"] == made.pair.collection_fingerprint
    assert manifest.config["folded"] == {"key": plan.key, "seq": plan.seq}
    assert manifest.config["prepare"] == read_manifest(made.pair.collection).config["prepare"]
    vectors = read_manifest(plan.vectors, "embeddings")
    assert vectors.inputs == {"collection": manifest.fingerprint, "model": made.pair.model_fingerprint}
    assert sum(len(ids) for ids, _ in read_parts(plan.vectors)) == vectors.counts["num"] == 41
    catalog = read_catalog(plan.collection, columns=("image_id", "part", "row", "split"))
    assert pair.collection_fingerprint == manifest.fingerprint
    for row in catalog.to_pylist():
        images = plan.collection.read_table(f"images/part-{row['part']:05d}.parquet", columns=["image_id"])
        assert images["image_id"][row["row"]].as_py() == row["image_id"]


def test_photos_without_an_embedding_stay_on_the_books(made: Sealed, store: Store) -> None:
    plan = plan_fold(made.pair, store)
    left = [{"image_id": name, "reason": "crashed"} for name in ("a/ada-000.jpg", "a/ada-005.jpg")]  # one is deleted
    plan.embeddings.write_table(REJECTED, pa.Table.from_pylist(left, REJECTED_SCHEMA))
    seal.begin_collection(plan)
    parts = write_parts(plan, store)
    sealed = seal.seal_vectors(plan, seal.seal_collection(plan, parts).fingerprint, parts)
    books = {book["stage"]: book for book in sealed.books}
    assert books["embed"] == {"stage": "embed", "taken": 41, "kept": 40, "rejected": {"crashed": 1}}
    assert books["write"] == {"stage": "write", "taken": 40, "kept": 40, "rejected": {}}
    assert sealed.counts["num"] == 40 and list(left_out(plan.vectors)) == ["a/ada-005.jpg"]


def test_what_was_interrupted_goes_on_and_comes_out_the_same(made: Sealed, store: Store) -> None:
    plan = plan_fold(made.pair, store)
    seal.begin_collection(plan)
    first = write_parts(plan, store)
    (Path(plan.collection.path) / "images/part-00001.parquet").unlink()
    again = write_parts(plan_fold(made.pair, store), store)
    assert again == first
    made_once = seal.seal_collection(plan, again)
    assert seal.begin_collection(plan_fold(made.pair, store)) == made_once
    store.add([new_image("more.jpg", 50)], made.pair.model_fingerprint)
    assert plan_fold(made.pair, store).collection != plan.collection


def test_what_was_said_of_people_is_said_of_the_new_gallery_too(made: Sealed, store: Store) -> None:
    number = SPLIT_FROM + store.edit_people("split", {"person": 1, "image_ids": ["new.jpg", "a/dan-015.jpg"]})
    store.edit_people("name", {"person": number, "name": "Ada"})
    _, _, pair = fold(made.pair, store)
    new = GalleryView(pair, store)
    assert new.people.names == {number: "Ada"}
    assert new.entry("new.jpg").person == new.entry("a/dan-015.jpg").person == number
    store.edit_people("name", {"person": number, "name": "Eve"})
    new.refresh()
    assert new.people.names == {number: "Eve"} and new.entry("new.jpg").person == number
