"""Tuples: who is whose candidate, which clusters validate, and that labels can stand for places."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.tuples import TupleSet, as_set
from retrieval.geometry import tuples
from retrieval.geometry.settings import ReconstructConfig
from retrieval.geometry.sparse_model import read_model
from retrieval.geometry.tuples import from_labels, write
from tests.support.tuples import scene

# a and b share 4 points at like scale, a and c 2 at twice the scale, b and c 2, d shares one point with c.
MODEL = scene(
    ["a", "b", "c", "d"],
    [(0, p, 1.0) for p in range(4)]
    + [(1, p, 1.1) for p in range(4)]
    + [(2, 2, 2.0), (2, 3, 2.0), (2, 4, 2.0), (3, 4, 2.0)],
)


def made(min_shared: int = 2) -> TupleSet:
    images = tuples.images_table(list("abcde"), [0, 0, 0, 0, 1], [MODEL], {"e": "alone"})
    return as_set(images, tuples.tuples_table(images, [MODEL], min_shared=min_shared))


def test_who_shares_enough_points_is_a_candidate() -> None:
    found = made()
    named = {
        found.image_ids[query]: (
            [found.image_ids[row] for row in found.candidates[at]],
            found.shared_points[at].tolist(),
            found.scale_change[at].round(3).tolist(),
        )
        for at, query in enumerate(found.queries)
    }
    assert named == {
        "a": (["b", "c"], [4, 2], [1.1, 2.0]),
        "b": (["a", "c"], [4, 2], [1.1, 1.818]),
        "c": (["a", "b"], [2, 2], [2.0, 1.818]),
    }


def test_every_image_is_accounted_for_once() -> None:
    images = tuples.images_table(list("abcde"), [0, 0, 0, 0, 1], [MODEL], {"e": "alone"}).to_pylist()
    assert [(row["image_id"], row["status"], row["reason"], row["num_points"]) for row in images] == [
        ("a", "registered", None, 4),
        ("b", "registered", None, 4),
        ("c", "registered", None, 3),
        ("d", "registered", None, 1),
        ("e", "unregistered", "alone", 0),
    ]
    with pytest.raises(ValueError, match="e is in no model, and nothing says why"):
        tuples.images_table(list("abcde"), [0] * 5, [MODEL], {})
    with pytest.raises(ValueError, match="a is in models 0 and 1"):
        tuples.images_table(list("abcd"), [0] * 4, [MODEL, MODEL], {})


def test_labels_stand_for_places() -> None:
    names, labels = ["p/1", "p/2", "p/3", "q/1", "q/2", "r/1", "x", "y"], ["p"] * 3 + ["q"] * 2 + ["r", None, None]
    images, rows = tuples.labelled_tables(names, labels)
    known = as_set(images, rows)
    assert [known.image_ids[query] for query in known.queries] == ["p/1", "p/2", "p/3", "q/1", "q/2"]
    assert [known.image_ids[row] for row in known.candidates[0]] == ["p/2", "p/3"]
    assert len(set(known.clusters)) == 5  # p, q, r, x, y: two photos without a label are two places
    status = {row["image_id"]: (row["status"], row["reason"]) for row in images.to_pylist()}
    assert status["r/1"] == ("unregistered", "its label has no other image")
    assert status["x"] == ("unregistered", "no label")


def test_val_takes_whole_clusters_and_leaves_two() -> None:
    names = [f"{cluster}/{number}" for cluster in range(10) for number in range(3)]
    tables = tuples.labelled_tables(names, [name[0] for name in names])
    images, rows = tuples.divide(*tables, val_fraction=0.2, seed=1)
    known = as_set(images, rows)
    val = set(known.clusters[known.splits == "val"])
    assert len(val) == 2
    assert not val & set(known.clusters[known.splits == "train"])
    assert set(rows["split"].to_pylist()) == {"train", "val"}
    for few in (1, 2, 3):
        kept = names[: 3 * few]
        images, _ = tuples.divide(*tuples.labelled_tables(kept, [n[0] for n in kept]), val_fraction=0.9)
        assert len({r["cluster"] for r in images.to_pylist() if r["split"] == "train"}) >= min(few, 2)


def test_candidates_of_a_large_label_are_drawn_by_the_seed_for_each_photo() -> None:
    names = [f"{number:02d}" for number in range(30)]
    tables = [
        tuples.labelled_tables(names, ["p"] * 30, max_candidates=5, seed=seed)[1].to_pylist() for seed in (0, 0, 1)
    ]
    assert tables[0] == tables[1]
    for first, other in zip(tables[0], tables[2], strict=True):
        assert len(first["candidates"]) == len(first["shared_points"]) == len(first["scale_change"]) == 5
        assert first["candidates"] == sorted(set(first["candidates"])) and first["query"] not in first["candidates"]
        assert (set(first["shared_points"]), set(first["scale_change"])) == ({0}, {1.0})
        assert first["candidates"] != other["candidates"]
    assert len({tuple(row["candidates"]) for row in tables[0]}) > 20  # each photo draws its own
    ((whole, _),) = [tuples.labelled_tables(names[:3], ["p"] * 3)[1].to_pylist()[0]["candidates"]]
    assert whole == "01"
    assert len(tuples.labelled_tables([f"{n:03d}" for n in range(60)], ["p"] * 60)[1]["candidates"][0]) == 50


def test_a_label_is_not_a_photo_of_the_same_name() -> None:
    images, found = tuples.labelled_tables(["x", "y", "z"], ["z", "z", None])
    assert [row["cluster"] for row in images.to_pylist()] == [0, 0, 1]
    assert [row["query"] for row in found.to_pylist()] == ["x", "y"]


def labelled(num: int, each: int = 2) -> pa.Table:
    names = [f"{cluster:02d}/{number}" for cluster in range(num) for number in range(each)]
    return pa.table({"image_id": names, "label": [name[:2] for name in names]})


def val_of(table: pa.Table) -> set[int]:
    return {row["cluster"] for row in table.to_pylist() if row["split"] == "val"}


def test_places_to_validate_on_are_drawn_by_the_seed_as_many_as_asked_for() -> None:
    drawn = set()
    for seed in range(5):
        images, found, models = from_labels(labelled(20), ReconstructConfig(val_fraction=0.25, seed=seed))
        assert len(val_of(images)) == 5 and val_of(images) == val_of(found) and models == ()
        again, _, _ = from_labels(labelled(20), ReconstructConfig(val_fraction=0.25, seed=seed))
        assert val_of(again) == val_of(images)
        for table in (images, found):  # a place is in one split, whole
            for cluster in range(20):
                assert len({row["split"] for row in table.to_pylist() if row["cluster"] == cluster}) == 1
        drawn.add(tuple(sorted(val_of(images))))
    assert len(drawn) == 5


@pytest.mark.parametrize(
    ("num", "fraction", "val"), [(20, 0.0, 0), (3, 0.3, 1), (4, 0.01, 2), (4, 0.9, 2), (5, 0.9, 3), (2, 0.9, 0)]
)
def test_two_places_train_at_least_and_two_validate_where_there_are_four(num: int, fraction: float, val: int) -> None:
    images, _, _ = from_labels(labelled(num), ReconstructConfig(val_fraction=fraction))
    assert len(val_of(images)) == val


def test_only_places_with_tuples_validate() -> None:
    table = pa.concat_tables([labelled(6), pa.table({"image_id": [f"z{n}" for n in range(40)], "label": ["z"] * 40})])
    table = table.set_column(1, "label", pa.array([*table["label"].to_pylist()[:12], *(f"z{n}" for n in range(40))]))
    images, found, _ = from_labels(table, ReconstructConfig(val_fraction=0.5))
    assert len(val_of(images)) == 3 and val_of(images) == val_of(found)


def test_what_is_written_is_counted_and_nothing_is_refused(tmp_path: Path) -> None:
    out = Folder.of(tmp_path)
    images = tuples.images_table(
        list("abcdefg"), [0, 0, 0, 0, 1, 2, 3], [MODEL], {"a": "it is in one", "e": "alone", "f": "alone", "g": "blank"}
    )
    found = tuples.tuples_table(images, [MODEL], min_shared=2)
    assert write(out, images, found, [MODEL]) == {
        "images": 7,
        "registered": 4,
        "unregistered": {"alone": 2, "blank": 1},
        "models": 1,
        "points": 5,
        "clusters": 4,
        "queries": 3,
    }
    assert out.read_table("images.parquet").equals(images) and out.read_table("tuples.parquet").equals(found)
    assert read_model(out, 0).image_ids == MODEL.image_ids
    empty = Folder.of(tmp_path / "empty")
    with pytest.raises(ValueError, match="No two of the 7 photos show one place .*'alone': 2"):
        write(empty, images, found[:0], [MODEL])
    assert not empty.list()
