"""Tuples: who may be whose positive, which clusters validate, and that labels can stand for places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import seal
from retrieval.artifacts.tuples import TupleSet, as_set, read_tuples, write_tuples
from retrieval.geometry import tuples
from retrieval.geometry.sparse_model import SparseModel, read_model, write_model
from retrieval.training.tuple_mining import choose_positives


def scene(names: list[str], seen: list[tuple[int, int, float]]) -> SparseModel:
    """seen: (image, point, scale)."""
    num = max(point for _, point, _ in seen) + 1
    images, points, scales = zip(*seen, strict=True)
    return SparseModel(
        image_ids=names,
        centres=np.arange(3.0 * len(names)).reshape(-1, 3),
        directions=np.tile([0.0, 0, 1], (len(names), 1)),
        points=np.arange(3.0 * num).reshape(-1, 3),
        colours=np.full((num, 3), 7, np.uint8),
        obs_image=np.array(images),
        obs_point=np.array(points),
        obs_scale=np.array(scales, dtype=np.float64),
    )


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


def test_positives_by_each_method() -> None:
    found = made()
    name = np.array(found.image_ids, dtype=object)
    descriptors = np.eye(5)[[0, 1, 0, 3, 4]]  # c looks like a
    assert name[choose_positives(found, "m1", descriptors=descriptors)].tolist() == ["c", "a", "a"]
    assert name[choose_positives(found, "m2")].tolist() == ["b", "a", "a"]
    assert name[choose_positives(found, "m3", max_scale_change=1.5)][:2].tolist() == ["b", "a"]
    assert choose_positives(found, "m3", max_scale_change=1.5)[2] == -1  # c appears too large beside both
    assert choose_positives(found, "m3", max_scale_change=3, min_shared=0.9)[0] == 1  # c shares half of what b does
    drawn = {int(choose_positives(found, "m3", max_scale_change=3, seed=seed)[0]) for seed in range(20)}
    assert drawn == {1, 2}
    with pytest.raises(ValueError, match="m1 need a descriptor of every image"):
        choose_positives(found, "m1")


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


def test_tables_and_models_come_back_from_storage(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    images = tuples.images_table(list("abcde"), [0, 0, 0, 0, 1], [MODEL], {"e": "alone"})
    write_tuples(folder, images, tuples.tuples_table(images, [MODEL], min_shared=2))
    write_model(folder, 0, MODEL)
    with pytest.raises(ValueError, match="No sealed tuples"):
        read_tuples(folder)
    seal(folder, kind="tuples", config={}, inputs={}, counts={})
    assert read_tuples(folder).queries.tolist() == made().queries.tolist()
    again = read_model(folder, 0)
    assert again.image_ids == MODEL.image_ids
    for name in ("centres", "directions", "points", "colours", "obs_image", "obs_point", "obs_scale"):
        assert np.array_equal(getattr(again, name), getattr(MODEL, name)), name
