"""Who is asked about whom, and embeddings and photos read back from where they lie."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from retrieval.artifacts import tuples
from retrieval.artifacts.collection import Jpegs
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import seal
from retrieval.evaluation import tasks
from tests.support.measured import photo, write_collection, write_system


@pytest.fixture
def collection(tmp_path: Path) -> Folder:
    return write_collection(Folder.of(tmp_path / "collection"))


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


def test_embeddings_and_photos_are_read_from_their_places(collection: Folder, tmp_path: Path) -> None:
    task = tasks.leave_one_out(collection)
    embeddings = write_system(Folder.of(tmp_path), collection).embeddings
    vectors = tasks.read_embeddings(embeddings, task.gallery)
    for row, image_id in enumerate(task.gallery.ids):
        place = int(task.gallery.parts[row]), int(task.gallery.rows[row])
        assert Jpegs(collection).read([place])[place] == photo(int(image_id[0]))
        stored = embeddings.read_table(part_name(place[0]))
        assert vectors[row] == pytest.approx(stored["embedding"][place[1]].as_py())
    moved = embeddings.read_table(part_name(0)).take(pa.array([1, 0, 2, 3]))
    embeddings.write_table(part_name(0), moved)
    with pytest.raises(ValueError, match="other images than the collection's catalog"):
        tasks.read_embeddings(embeddings, task.gallery)
