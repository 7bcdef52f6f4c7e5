"""Who is asked about whom, and embeddings and photos read back from where they lie."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts import tuples
from retrieval.artifacts.collection import CATALOG_SCHEMA, Jpegs
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import read_manifest, seal
from retrieval.evaluation import tasks
from tests.support.asking import ids_of, labels_of
from tests.support.measured import photo, write_collection, write_system


@pytest.mark.parametrize("kept", ["val", "train"])
def test_without_labels_the_places_that_mining_kept_ask(collection: Folder, tmp_path: Path, kept: str) -> None:
    """Photos 0 to 2 are one mined place, of which 2 was not registered; 3 and 4 another, for training; 5 nothing."""
    folder, states = Folder.of(tmp_path / "tuples"), ["registered"] * 2 + ["unregistered"] + ["registered"] * 2
    images = [
        {"image_id": f"{n}.jpg", "cluster": cluster, "status": state, "split": kept if cluster == 0 else "train"}
        for n, (cluster, state) in enumerate(zip([0, 0, 0, 1, 1, 2], [*states, "unregistered"]))
    ]
    found = [
        {"query": f"{a}.jpg", "cluster": a // 3, "split": kept if a < 3 else "train", "candidates": [f"{b}.jpg"]}
        | {"shared_points": [20], "scale_change": [1.0]}
        for a, b in ((0, 1), (1, 0), (3, 4), (4, 3))
    ]
    tables = (pa.Table.from_pylist(images, tuples.IMAGES_SCHEMA), pa.Table.from_pylist(found, tuples.TUPLES_SCHEMA))
    tuples.write_tuples(folder, *tables)
    seal(folder, kind=tuples.KIND, config={}, inputs={}, counts={})
    task = tasks.mined_places(collection, folder)
    assert ids_of(task.gallery) == ["0.jpg", "1.jpg", "3.jpg", "4.jpg", "5.jpg"]
    trained = {"3.jpg": "place 1", "4.jpg": "place 1"} if kept == "train" else {}
    assert dict(zip(ids_of(task.gallery), labels_of(task.gallery))) == {
        **dict.fromkeys(ids_of(task.gallery)), "0.jpg": "place 0", "1.jpg": "place 0", **trained,
    }  # fmt: skip
    assert ids_of(task.queries) == ["0.jpg", "1.jpg", *trained]
    assert task.exclude.tolist() == [ids_of(task.gallery).index(name) for name in ids_of(task.queries)]
    assert task.asks_itself and ("trained on" in task.protocol) == (kept == "train")


def test_two_photos_of_one_label_are_needed_to_score(collection: Folder) -> None:
    assert tasks.anything_labelled(collection)
    assert not tasks.anything_labelled(collection, splits=("query",))


def test_leave_one_out_asks_with_everyone_who_has_a_match(collection: Folder) -> None:
    task = tasks.leave_one_out(collection, ks=(1, 100))
    assert ids_of(task.gallery) == [
        f"{n}.jpg" for n in range(6)
    ]  # the single one is a distractor; the copy is left out
    assert ids_of(task.queries) == [f"{n}.jpg" for n in range(5)]
    assert task.exclude.tolist() == [0, 1, 2, 3, 4]
    assert task.ks == [1, 5]
    drawn = [tasks.leave_one_out(collection, max_queries=2, seed=seed) for seed in (1, 1, 2)]
    assert ids_of(drawn[0].queries) == ids_of(drawn[1].queries)
    assert all(len(ids_of(some.queries)) == 2 for some in drawn)
    assert [ids_of(drawn[2].gallery)[row] for row in drawn[2].exclude] == ids_of(drawn[2].queries)


def test_query_gallery_takes_the_catalogs_split(collection: Folder) -> None:
    task = tasks.query_gallery(collection)
    assert (ids_of(task.queries), ids_of(task.gallery)) == (["0.jpg", "3.jpg"], ["1.jpg", "2.jpg", "4.jpg"])
    assert tasks.describe(task)["num_gallery_without_attributes"] == 1
    assert tasks.describe(task)["ks_asked"] == [10, 20, 50, 100, 1000] and task.ks == [3]
    catalog = collection.read_table("catalog.parquet")
    unlabelled = catalog.set_column(2, "split", pa.array(["gallery"] * len(catalog)))
    collection.write_table("catalog.parquet", unlabelled)
    with pytest.raises(ValueError, match="has 0 query and 8 gallery photos"):
        tasks.query_gallery(collection)


def test_images_without_an_embedding_neither_ask_nor_answer(collection: Folder) -> None:
    task = tasks.leave_one_out(collection)
    away = {ids_of(task.queries)[0], ids_of(task.gallery)[-1]}
    left = tasks.leave_one_out(collection, without=away)
    assert ids_of(left.queries) == [one for one in ids_of(task.queries) if one not in away]
    assert ids_of(left.gallery) == [one for one in ids_of(task.gallery) if one not in away]
    assert [ids_of(left.gallery)[row] for row in left.exclude] == ids_of(left.queries)
    assert len(left.gallery.codes) == len(ids_of(left.gallery)) == len(left.gallery.rows)
    asked = tasks.query_gallery(collection)
    less = tasks.query_gallery(collection, without={ids_of(asked.gallery)[0]})
    assert ids_of(less.gallery) == ids_of(asked.gallery)[1:] and set(less.exclude.tolist()) == {-1}


def test_embeddings_and_photos_are_read_from_their_places(collection: Folder, tmp_path: Path) -> None:
    task = tasks.leave_one_out(collection)
    embeddings = write_system(Folder.of(tmp_path), collection).embeddings
    vectors = tasks.read_embeddings(embeddings, task.gallery)
    for row, image_id in enumerate(ids_of(task.gallery)):
        place = int(task.gallery.parts[row]), int(task.gallery.rows[row])
        assert Jpegs(collection).read([place])[place] == photo(int(image_id[0]))
        stored = embeddings.read_table(part_name(place[0]))
        assert vectors[row] == pytest.approx(stored["embedding"][place[1]].as_py())
    moved = embeddings.read_table(part_name(0)).take(pa.array([1, 0, 2, 3]))
    embeddings.write_table(part_name(0), moved)
    with pytest.raises(ValueError, match="other images than the collection's catalog"):
        tasks.read_embeddings(embeddings, task.gallery)


def test_the_seed_draws_the_queries(collection: Folder) -> None:
    drawn = {seed: ids_of(tasks.leave_one_out(collection, max_queries=2, seed=seed).queries) for seed in range(6)}
    assert len({tuple(ids) for ids in drawn.values()}) > 1
    assert all(ids == sorted(ids) and len(set(ids)) == 2 for ids in drawn.values())
    assert len(ids_of(tasks.leave_one_out(collection, max_queries=5).queries)) == 5
    assert len(ids_of(tasks.leave_one_out(collection, max_queries=9).queries)) == 5
    asked = [tasks.query_gallery(collection, max_queries=1, seed=seed) for seed in range(6)]
    assert {task.queries.id(0) for task in asked} == {"0.jpg", "3.jpg"}
    assert all(len(task.queries) == len(task.exclude) == 1 and len(task.gallery) == 3 for task in asked)


def test_unlabelled_photos_answer_only_where_they_cannot_show_who_asks(collection: Folder) -> None:
    catalog = collection.read_table("catalog.parquet")
    kept = catalog.set_column(catalog.schema.get_field_index("reason"), "reason", pa.nulls(len(catalog), pa.string()))
    collection.write_table("catalog.parquet", kept)
    unlabelled = [row["image_id"] for row in catalog.to_pylist() if row["label"] is None]
    every, labelled = (tasks.leave_one_out(collection, distractors=some) for some in (True, False))
    assert unlabelled and set(unlabelled) <= set(ids_of(every.gallery))
    assert not set(unlabelled) & set(ids_of(labelled.gallery)) and ids_of(labelled.queries) == ids_of(every.queries)


def test_leave_one_out_of_some_splits_takes_no_others(collection: Folder) -> None:
    task = tasks.leave_one_out(collection, splits=("query", "gallery"))
    assert ids_of(task.gallery) == [f"{n}.jpg" for n in range(5)]
    assert ids_of(tasks.leave_one_out(collection, splits=("gallery",)).queries) == ["1.jpg", "2.jpg"]
    with pytest.raises(ValueError, match=r"No identity .* has two different photos \(2 photos\)"):
        tasks.leave_one_out(collection, splits=("query",))


def test_unlabelled_photos_that_were_kept_answer_and_do_not_ask(collection: Folder) -> None:
    catalog = collection.read_table("catalog.parquet").to_pylist()
    for row in catalog:
        if row["image_id"] in ("5.jpg", "6.jpg"):
            row |= {"label": None, "reason": None}
    collection.write_table("catalog.parquet", pa.Table.from_pylist(catalog, CATALOG_SCHEMA))
    task = tasks.leave_one_out(collection)
    assert ids_of(task.gallery) == [f"{n}.jpg" for n in range(7)] and len(ids_of(task.queries)) == 5


def test_a_task_knows_how_many_results_a_query_can_have(collection: Folder) -> None:
    asked = tasks.query_gallery(collection, ks=(5, 1, 3, 2))
    assert (asked.asks_itself, asked.most, asked.ks) == (False, 3, [1, 2, 3])
    itself = tasks.leave_one_out(collection, ks=(6, 2))
    assert (itself.asks_itself, itself.most, itself.ks) == (True, 5, [2, 5])
    assert (asked.protocol, itself.protocol) == ("query/gallery", "leave-one-out")
    assert asked.exclude.tolist() == [-1, -1]


def test_images_say_where_they_lie(collection: Folder) -> None:
    """Photo n is in part n % 2, in row n // 2 of it; the catalog is in another order."""
    catalog = collection.read_table("catalog.parquet")
    collection.write_table("catalog.parquet", catalog.take(pa.array([7, 3, 0, 5, 2, 6, 1, 4])))
    gallery = tasks.leave_one_out(collection).gallery
    assert ids_of(gallery) == [f"{n}.jpg" for n in range(6)]
    assert gallery.places(np.array([[4, -1], [3, 0]])).tolist() == [[[0, 2], [-1, -1]], [[1, 1], [0, 0]]]
    assert gallery.place(5) == (1, 2)
    some = gallery.take(np.array([4, 1]))
    assert (ids_of(some), labels_of(some)) == (["4.jpg", "1.jpg"], ["bob", "ann"])
    assert (some.place(0), some.place(1)) == ((0, 2), (1, 0))
    assert not some.attributes[0].any() and (some.attributes[1] == gallery.attributes[1]).all()
    stored = {row["image_id"]: row["attributes"] for row in catalog.to_pylist()}
    assert gallery.attributes[3].tolist() == stored["3.jpg"]


def test_a_task_is_described(collection: Folder) -> None:
    task = tasks.query_gallery(collection, ks=(2, 9))
    task.queries.codes[1] = 7  # a label that nobody in the gallery has
    assert tasks.describe(task) == {
        "protocol": "query/gallery",
        "num_queries": 2,
        "num_gallery": 3,
        "asks_itself": False,
        "num_identities": 2,
        "num_without_positive": 1,
        "num_queries_without_attributes": 0,
        "num_gallery_without_attributes": 1,
        "ks_asked": [2, 9],
        "ks": [2, 3],
    }
    task.queries.codes[0] = 8
    assert tasks.describe(task)["num_without_positive"] == 2
    itself = tasks.describe(tasks.leave_one_out(collection))
    assert (itself["num_identities"], itself["num_without_positive"], itself["asks_itself"]) == (2, 0, True)
    assert itself["num_queries_without_attributes"] == 1


@pytest.mark.parametrize(
    ("crop", "subject"), [("fit", "place"), ("haar", "person"), ("aligned", "person"), ("none", "person")]
)
def test_photos_kept_whole_are_of_places(tmp_path: Path, crop: str, subject: str) -> None:
    assert tasks.subject_of(read_manifest(write_collection(Folder.of(tmp_path / "c"), crop=crop))) == subject


def test_too_short_a_part_is_refused(collection: Folder, tmp_path: Path) -> None:
    embeddings = write_system(Folder.of(tmp_path), collection).embeddings
    embeddings.write_table(part_name(1), embeddings.read_table(part_name(1)).slice(0, 2))
    with pytest.raises(ValueError, match="has only 2 rows"):
        tasks.read_embeddings(embeddings, tasks.leave_one_out(collection).gallery)


def test_labelled_photos_are_those_of_both_sides_each_once(collection: Folder) -> None:
    asked = tasks.query_gallery(collection)
    both = tasks.labelled_photos(asked)
    assert ids_of(both) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert labels_of(both) == ["ann", "ann", "ann", "bob", "bob"]
    assert both.place(3) == (1, 1)
    alone = tasks.labelled_photos(tasks.leave_one_out(collection))
    assert ids_of(alone) == ids_of(tasks.leave_one_out(collection).gallery)
    asked.gallery.codes[0] = -1
    assert ids_of(tasks.labelled_photos(asked)) == ["0.jpg", "2.jpg", "3.jpg", "4.jpg"]
    guessed = dataclasses.replace(asked, protocol="places mined for validation")
    assert ids_of(tasks.labelled_photos(guessed)) == []
