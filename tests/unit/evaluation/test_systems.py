"""One system's figures against a plain loop, and reading single photos and embeddings back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts import tuples
from retrieval.artifacts.collection import CATALOG_SCHEMA, IMAGE_SCHEMA, read_jpegs
from retrieval.artifacts.embeddings import EMBEDDING_SCHEMA
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import seal
from retrieval.data.layouts.celeba import ATTRIBUTES
from retrieval.evaluation import systems, tasks
from retrieval.reports.sheets import sheet_rows
from retrieval.search.index import flat_search

PEOPLE = ("ann", "ann", "ann", "bob", "bob", "cyd", None, "ann")
REASONS = (None, None, None, None, None, "single-image identity", "unlabelled", "duplicate")
SPLITS = ("query", "gallery", "gallery", "query", "gallery", "dropped", "dropped", "dropped")


@pytest.fixture
def collection(tmp_path: Path) -> Folder:
    """Eight photos in two parts; the attributes of the fifth are not known."""
    folder, rng = Folder.of(tmp_path / "collection"), np.random.default_rng(5)
    rows = []
    for number, (label, split, reason) in enumerate(zip(PEOPLE, SPLITS, REASONS)):
        attributes = None if number == 4 else rng.choice([-1, 1], len(ATTRIBUTES)).tolist()
        place = {"part": number % 2, "row": number // 2}
        known = {"image_id": f"{number}.jpg", "label": label, "split": split, "reason": reason}
        rows.append(known | place | {"attributes": attributes})
    folder.write_table("catalog.parquet", pa.Table.from_pylist(rows, CATALOG_SCHEMA))
    for part in (0, 1):
        photos = [
            {"image_id": row["image_id"], "jpeg": row["image_id"].encode()} for row in rows if row["part"] == part
        ]
        (folder / "images").write_table(part_name(part), pa.Table.from_pylist(photos, IMAGE_SCHEMA), row_group_size=3)
        vectors = [
            {"image_id": row["image_id"], "embedding": rng.normal(size=4)} for row in rows if row["part"] == part
        ]
        (folder / "embeddings").write_table(part_name(part), pa.Table.from_pylist(vectors, EMBEDDING_SCHEMA))
    return folder


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
    assert task.gallery.ids == ["0.jpg", "1.jpg", "3.jpg", "4.jpg", "5.jpg"]
    trained = {"3.jpg": "place 1", "4.jpg": "place 1"} if kept == "train" else {}
    assert dict(zip(task.gallery.ids, task.gallery.labels)) == {
        **dict.fromkeys(task.gallery.ids), "0.jpg": "place 0", "1.jpg": "place 0", **trained,
    }  # fmt: skip
    assert task.queries.ids == ["0.jpg", "1.jpg", *trained]
    assert task.exclude.tolist() == [task.gallery.ids.index(name) for name in task.queries.ids]
    assert task.asks_itself and ("trained on" in task.protocol) == (kept == "train")


def test_two_photos_of_one_label_are_needed_to_score(collection: Folder) -> None:
    assert tasks.anything_labelled(collection)
    assert not tasks.anything_labelled(collection, splits=("query",))


def test_leave_one_out_asks_with_everyone_who_has_a_match(collection: Folder) -> None:
    task = tasks.leave_one_out(collection, ks=(1, 100))
    assert task.gallery.ids == [f"{n}.jpg" for n in range(6)]  # the single one is a distractor; the copy is left out
    assert task.queries.ids == [f"{n}.jpg" for n in range(5)]
    assert task.exclude.tolist() == [0, 1, 2, 3, 4]
    assert task.ks == [1, 5]
    drawn = [tasks.leave_one_out(collection, max_queries=2, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0].queries.ids == drawn[1].queries.ids
    assert all(len(some.queries.ids) == 2 for some in drawn)
    assert [drawn[2].gallery.ids[row] for row in drawn[2].exclude] == drawn[2].queries.ids


def test_query_gallery_takes_the_catalogs_split(collection: Folder) -> None:
    task = tasks.query_gallery(collection)
    assert (task.queries.ids, task.gallery.ids) == (["0.jpg", "3.jpg"], ["1.jpg", "2.jpg", "4.jpg"])
    assert tasks.describe(task)["num_gallery_without_attributes"] == 1
    assert tasks.describe(task)["ks_asked"] == [10, 20, 50, 100, 1000] and task.ks == [3]
    catalog = collection.read_table("catalog.parquet")
    unlabelled = catalog.set_column(2, "split", pa.array(["gallery"] * len(catalog)))
    collection.write_table("catalog.parquet", unlabelled)
    with pytest.raises(ValueError, match="has 0 query and 8 gallery photos"):
        tasks.query_gallery(collection)


def test_embeddings_and_photos_are_read_from_their_places(collection: Folder) -> None:
    task = tasks.leave_one_out(collection)
    vectors = tasks.read_embeddings(collection / "embeddings", task.gallery)
    for row, image_id in enumerate(task.gallery.ids):
        place = int(task.gallery.parts[row]), int(task.gallery.rows[row])
        assert read_jpegs(collection, [place])[place] == image_id.encode()
        stored = (collection / "embeddings").read_table(part_name(place[0]))
        assert vectors[row] == pytest.approx(stored["embedding"][place[1]].as_py())
    moved = (collection / "embeddings").read_table(part_name(0)).take(pa.array([1, 0, 2, 3]))
    (collection / "embeddings").write_table(part_name(0), moved)
    with pytest.raises(ValueError, match="other images than the collection's catalog"):
        tasks.read_embeddings(collection / "embeddings", task.gallery)


@pytest.mark.parametrize("make", [tasks.leave_one_out, tasks.query_gallery])
def test_figures_equal_a_plain_loop(collection: Folder, make: object) -> None:
    task = tasks.leave_one_out(collection, (2,)) if make is tasks.leave_one_out else make(collection, (2,))  # type: ignore[operator]
    queries, gallery = (tasks.read_embeddings(collection / "embeddings", s) for s in (task.queries, task.gallery))
    measured = systems.measure(task, queries, gallery, flat_search(gallery))
    figures, found = measured.figures, measured.found
    hits, accuracy, pairs = [], [], 0
    for query in range(len(queries)):
        others = [row for row in range(len(gallery)) if task.gallery.ids[row] != task.queries.ids[query]]
        best = sorted(others, key=lambda row: -float(queries[query] @ gallery[row]))
        assert found.rows[query].tolist() == best[:2]
        hits.append(task.gallery.labels[best[0]] == task.queries.labels[query])
        mine = task.queries.attributes[query]
        known = [task.gallery.attributes[row] for row in best[:2] if task.gallery.attributes[row].any()]
        if mine.any() and known:
            accuracy.append(np.mean([(theirs == mine).mean() for theirs in known]))
            pairs += len(known)
    assert figures["recall@1"] == pytest.approx(np.mean(hits))
    assert figures["attribute_accuracy@2"] == pytest.approx(np.mean(accuracy))
    assert figures["attribute_pairs@2"] == pairs
    assert figures["index_recall@10"] == 1.0 and figures["query_seconds@2"] > 0


def test_sheets_show_the_same_queries_for_every_system(collection: Folder) -> None:
    task = tasks.leave_one_out(collection, (5,))
    vectors = tasks.read_embeddings(collection / "embeddings", task.gallery)
    sheets = []
    for sign in (1, -1):
        scaled = vectors * np.array([1, sign, 1, 1], np.float32)
        found = systems.measure(task, vectors[task.exclude], scaled, flat_search(scaled)).found
        sheets.append(sheet_rows(task, found, collection, num_queries=3, seed=2))
    assert [row.jpeg for row in sheets[0]] == [row.jpeg for row in sheets[1]]
    assert [[hit.jpeg for hit in row.hits] for row in sheets[0]] != [
        [hit.jpeg for hit in row.hits] for row in sheets[1]
    ]
    for row in sheets[0]:
        assert len(row.hits) == 5 and row.jpeg not in [hit.jpeg for hit in row.hits]
        assert [hit.right for hit in row.hits] == [hit.label == row.label for hit in row.hits]


def test_floors_are_none_where_nothing_has_attributes(collection: Folder) -> None:
    task = tasks.query_gallery(collection)
    found = systems.floors(task)
    assert found is not None and found["oracle@3"] >= found["same_identity_pair"]
    task.gallery.attributes[:] = 0
    assert systems.floors(task) is None
