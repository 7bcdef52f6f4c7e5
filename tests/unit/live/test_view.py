"""The gallery as it is now: what was added is found, what was deleted is not, k stays k, by every kind of index."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from retrieval.live.entries import Hit
from retrieval.live.filters import Filter, allows
from retrieval.live.people import SPLIT_FROM
from retrieval.live.rows import NewImage
from retrieval.live.store import Store
from retrieval.live.view import GalleryView
from retrieval.search.engines import engine
from tests.support.gallery import Sealed, new_image, sealed_gallery
from tests.support.vectors import DIM, clustered

FACTORIES = ["Flat", "KDTree", "IVF4,Flat", "HNSW8", "IVF4,PQ8x4fs,RFlat", "SQ8"]
QUERIES = clustered(4, seed=11)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    return sealed_gallery(tmp_path_factory.mktemp("view"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


@pytest.fixture
def view(made: Sealed, store: Store) -> GalleryView:
    return GalleryView(made.pair, store)


def ranked(vectors: dict[str, np.ndarray], query: np.ndarray) -> list[str]:
    """All of them, sorted plainly."""
    scores = {name: np.float32(np.dot(vector.astype(np.float64), query)) for name, vector in vectors.items()}
    return sorted(vectors, key=lambda name: (-scores[name], name))


def ids(hits: list[Hit]) -> list[str]:
    return [hit.image_id for hit in hits]


def add(store: Store, made: Sealed, *images: NewImage, **settings: object) -> None:
    for image in images:
        status, _ = store.add([image], made.pair.model_fingerprint, **settings)  # type: ignore[arg-type]
        assert status == "added"


def test_without_changes_it_is_what_was_sealed(made: Sealed) -> None:
    view = GalleryView(made.pair)
    assert (len(view), view.refresh(), view.seq, view.dim) == (40, 0, 0, DIM)
    for query, hits in zip(QUERIES, view.search(QUERIES, 12), strict=True):
        assert ids(hits) == ranked(made.vectors, query)[:12]
    assert view.search(QUERIES, 99)[0][0].where == "sealed" and len(view.search(QUERIES, 99)[0]) == 40
    for name, crop in made.crops.items():
        assert view.jpeg(name) == crop
        assert view.vector(name).tolist() == made.vectors[name].tolist()


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("few", [64, 0])
@pytest.mark.parametrize("scanned", [True, False])
def test_changes_are_in_the_next_search_and_k_stays_k(
    tmp_path: Path, factory: str, few: int, scanned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.live.view._FEW", few)
    if not scanned:
        monkeypatch.setattr(engine, "SCAN_AT_MOST", 0)
        monkeypatch.setattr(engine, "SCAN_SHARE", 0.0)
    made = sealed_gallery(tmp_path, factory)
    store = Store.open(made.workspace)
    view = GalleryView(made.pair, store)
    there = dict(made.vectors)
    steps = [[new_image(f"new/{number}.jpg", number) for number in range(3)], [new_image("new/1.jpg", 9)]]
    for images in steps:
        add(store, made, *images, replace=True)
        there |= {one.image_id: one.vector for one in images}
        gone = [*ids(view.search(QUERIES, 5)[0])[:2], "new/2.jpg"]
        store.delete(gone, {})
        there = {name: vector for name, vector in there.items() if name not in gone}
        assert len(view) == len(there)
        for k in (1, 7, 60):
            for query, hits in zip(QUERIES, view.search(QUERIES, k), strict=True):
                assert len(hits) == min(k, len(there)) == len(set(ids(hits)))
                assert set(ids(hits)) <= set(there)
                if factory in ("Flat", "KDTree"):
                    assert ids(hits) == ranked(there, query)[:k]
    for name, vector in there.items():
        if name.startswith("new/"):
            assert ids(view.search(vector[None], 1)[0]) == [name]


FILTERS = [
    Filter(label=("ada", "new")),
    Filter(folder=("a",)),
    Filter(person=(2,)),
    Filter(split=("gallery",)),
    Filter(attributes=(("hat", 1),)),
    Filter(image_id=("new/1.jpg", "a/ada-000.jpg")),
    Filter(label=("nobody",)),
]


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_a_filter_is_of_both_halves(made: Sealed, store: Store, view: GalleryView, wanted: Filter) -> None:
    fresh = [new_image(f"new/{n}.jpg", n, label="new", attributes={"hat": (1, -1)[n % 2]}) for n in range(4)]
    add(store, made, *fresh)
    store.delete(["a/ada-000.jpg", "new/0.jpg"], {})
    vectors = made.vectors | {one.image_id: one.vector for one in fresh}
    everything, _ = view.entries(None, 100)
    left = {one.image_id: vectors[one.image_id] for one in everything if allows(wanted, one)}
    assert view.num_allowed(wanted) == len(left) and sorted(view.image_ids(wanted)) == sorted(left)
    for k in (2, 50):
        for query, hits in zip(QUERIES, view.search(QUERIES, k, wanted), strict=True):
            assert ids(hits) == ranked(left, query)[:k]
    assert [one.image_id for one in view.entries(None, 100, wanted)[0]] == sorted(left)


def test_a_change_leaves_what_filters_said_of_the_sealed_in_memory(
    made: Sealed, store: Store, view: GalleryView, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, allowed = list[Filter](), view.sealed.columns.allowed
    monkeypatch.setattr(
        view.sealed.columns, "allowed", lambda wanted, person: asked.append(wanted) or allowed(wanted, person)
    )
    label, person = Filter(label=("ada",)), Filter(person=(1,))
    before = [view.num_allowed(one) for one in (label, person)]
    store.delete(["a/ada-000.jpg"], {})
    after = [view.num_allowed(one) for one in (label, person)]
    assert after[0] == before[0] - 1 and asked == [label, person, person]


def test_pages_of_the_gallery_hold_each_image_once(made: Sealed, store: Store, view: GalleryView) -> None:
    add(store, made, new_image("a/b/new.jpg", 1), new_image("zz.jpg", 2))
    store.delete(["a/ada-000.jpg"], {})
    expected = sorted({*made.vectors, "a/b/new.jpg", "zz.jpg"} - {"a/ada-000.jpg"})
    for limit in (1, 7, 41, 100):
        found, after = [], None
        while True:
            page, after = view.entries(after, limit)
            assert len(page) <= limit
            found += [one.image_id for one in page]
            if after is None:
                break
        assert found == expected


def test_an_entry_says_where_it_lies_and_what_is_known(made: Sealed, store: Store, view: GalleryView) -> None:
    sealed = view.entry("a/dan-003.jpg")
    assert (sealed.where, sealed.label, sealed.person, sealed.face, sealed.photo) == (
        "sealed", "dan", 4, None, "a/dan-003.jpg"
    )  # fmt: skip
    assert (sealed.width, sealed.height, sealed.added, sealed.original) == (48, 48, None, False)
    assert sealed.attributes is not None and len(sealed.attributes) == 40 and sealed.content_hash
    face = view.entry("c/group.jpg#1")
    assert (face.photo, face.face) == ("c/group.jpg", 1)
    add(store, made, new_image("new.jpg", 1, label="eve"), original=b"as it was sent")
    live = view.entry("new.jpg")
    assert (live.where, live.label, live.person, live.original) == ("live", "eve", None, True)
    assert view.original("new.jpg") == b"as it was sent" and view.original("a/dan-003.jpg") is None
    assert view.jpeg("new.jpg") == new_image("new.jpg", 1).jpeg
    assert view.images_of("c/group.jpg") == [f"c/group.jpg#{face}" for face in range(3)]
    assert view.num_identities == 5  # one of them in what was added, and nobody for photos without a label
    assert view.images_of("new.jpg") == ["new.jpg"] and view.images_of("no.jpg") == []
    (hit,) = view.search(view.vectors_of(["new.jpg"]), 1)[0]
    assert (hit.image_id, hit.row, hit.label, hit.where, hit.added) == ("new.jpg", None, "eve", "live", live.added)


def test_what_was_deleted_is_nowhere(made: Sealed, store: Store, view: GalleryView) -> None:
    add(store, made, new_image("new.jpg", 1), original=b"x")
    row = view.sealed.columns.row_of("a/ada-000.jpg")
    assert row is not None and view.jpeg_at(row) == view.jpeg("a/ada-000.jpg")
    store.delete(["a/ada-000.jpg", "new.jpg"], {})
    for name in ("a/ada-000.jpg", "new.jpg"):
        for ask in (view.jpeg, view.entry, view.vector, view.original):
            with pytest.raises(KeyError, match=name):
                ask(name)
    with pytest.raises(IndexError, match="deleted"):
        view.jpeg_at(row)
    for name in ("a/ada-000.jpg", "new.jpg", ""):
        with pytest.raises(KeyError):
            view.row_of(name)
    assert view.row_of("a/dan-003.jpg") == view.sealed.columns.row_of("a/dan-003.jpg")
    with pytest.raises(KeyError):
        view.jpeg("a/twin.jpg")  # a copy that is not indexed


def test_a_sealed_photo_that_is_replaced_is_the_new_one(made: Sealed, store: Store, view: GalleryView) -> None:
    image = new_image("a/ada-000.jpg", 5, label="new")
    add(store, made, image)
    assert len(view) == 40 and view.entry("a/ada-000.jpg").label == "new"
    assert view.jpeg("a/ada-000.jpg") == image.jpeg
    found = ids(view.search(QUERIES, 100)[0])
    assert len(found) == 40 == len(set(found))
    assert ids(view.search(image.vector[None], 1)[0]) == ["a/ada-000.jpg"]
    store.delete(["a/ada-000.jpg"], {})
    assert len(view) == 39 and "a/ada-000.jpg" not in ids(view.search(QUERIES, 100)[0])


def test_people_are_who_somebody_says_they_are(made: Sealed, store: Store, view: GalleryView) -> None:
    add(store, made, new_image("new.jpg", 1))
    before = view.num_allowed(Filter(person=(1,))), view.num_allowed(Filter(person=(2,)))
    store.edit_people("name", {"person": 2, "name": "Bob"})
    store.edit_people("merge", {"person": 2, "into": 1})
    seq = store.edit_people("split", {"person": 1, "image_ids": ["a/ada-000.jpg", "new.jpg"]})
    assert view.num_allowed(Filter(person=(2,))) == 0
    assert view.num_allowed(Filter(person=(1,))) == sum(before) - 1
    number = SPLIT_FROM + seq
    assert view.image_ids(Filter(person=(number,))) == ["a/ada-000.jpg", "new.jpg"]
    assert view.entry("new.jpg").person == view.entry("a/ada-000.jpg").person == number
    assert view.people.names == {1: "Bob"}


def test_another_model_embeds_what_was_added_from_its_crop_once(made: Sealed, store: Store) -> None:
    image = new_image("new.jpg", 1, prepared="face")
    store.add([image, new_image("new2.jpg", 2, photo="new.jpg", prepared="other")], "n" * 64)
    asked: list[bytes] = []

    def embed(crops: list[bytes]) -> np.ndarray:
        asked.extend(crops)
        return np.stack([image.vector for _ in crops])

    view = GalleryView(made.pair, store, embed, "face")  # type: ignore[arg-type]
    assert asked == [image.jpeg]
    assert ids(view.search(image.vector[None], 1)[0]) == ["new.jpg"]
    assert view.left_out == 1 and len(view) == 41  # what was cut otherwise
    again = GalleryView(made.pair, store, embed, "face")  # type: ignore[arg-type]
    assert len(asked) == 1 and again.vector("new.jpg").tolist() == image.vector.tolist()
    assert GalleryView(made.pair, Store.open(made.workspace)).left_out == 0


def test_a_collection_that_holds_changes_is_looked_at_without_them(made: Sealed, store: Store) -> None:
    add(store, made, new_image("old.jpg", 1))
    store.delete(["a/ada-000.jpg"], {})
    store.note_fold(made.pair.collection_fingerprint, store.seq())
    add(store, made, new_image("new.jpg", 2))
    view = GalleryView(made.pair, store)
    assert len(view) == 41 and view.entry("new.jpg") and view.entry("a/ada-000.jpg")
    with pytest.raises(KeyError):
        view.entry("old.jpg")


@pytest.mark.parametrize("gone", [(), (0,), (0, 1, 2, 39), (5, 20, 21, 22), tuple(range(40))])
def test_some_rows_are_spread_over_those_that_are_there(made: Sealed, gone: tuple[int, ...]) -> None:
    view = GalleryView(made.pair)
    view._still = dataclasses.replace(view._still, hidden=np.array(gone, dtype=np.int64))
    there = [row for row in range(40) if row not in gone]
    for num in (1, 7, 100):
        rows = view.some_sealed_rows(num).tolist()
        assert len(rows) == min(num, len(there)) and set(rows) <= set(there) and rows == sorted(set(rows))
        if num > 1 and there:
            assert (rows[0], rows[-1]) == (there[0], there[-1])
    assert view.some_sealed_rows(100).tolist() == there
