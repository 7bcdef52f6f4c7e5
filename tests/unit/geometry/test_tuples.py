"""Tuples: who is whose candidate, which clusters validate, and that labels can stand for places."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.tuples import TupleSet, as_set
from retrieval.geometry import mapping, tuples
from retrieval.geometry.settings import ReconstructConfig
from retrieval.geometry.sparse_model import SparseModel, covisible_pairs, read_model
from retrieval.geometry.tuples import from_labels, from_models, write


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


# ---- models of others ----


CONFIG = ReconstructConfig(min_shared=10, val_fraction=0)
NAMES = [f"castle/{number:03d}.jpg" for number in range(6)]


def listed(image_ids: Sequence[str]) -> pa.Table:
    return pa.table({"image_id": pa.array(image_ids, pa.string()), "label": pa.nulls(len(image_ids), pa.string())})


def by_id(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for row in table.to_pylist()}


def seen_in_part() -> SparseModel:
    """Six images of 60 points: neighbours share 30, the next but one 20, the next 10; no scale is like another."""
    seen = [
        (image, point, 1.0 + image + point / 100) for image in range(6) for point in range(10 * image, 10 * image + 40)
    ]
    return scene(NAMES, [(image, point % 60, scale) for image, point, scale in seen])


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> tuple[Path, SparseModel]:
    """A folder with a model of a place, as `mapping.read_models` finds it there; and the model."""
    folder, model = Path("sparse"), seen_in_part()
    monkeypatch.setattr(mapping, "read_models", {folder: [model]}.__getitem__)
    return folder, model


def test_models_become_tuples_and_other_photos_are_told(
    mapped: tuple[Path, SparseModel], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, model = mapped
    gone = model.image_ids[1]
    image_ids = sorted([name for name in NAMES if name != gone] + ["other/a.jpg", "other/b.jpg"])
    images, found, models = from_models(listed(image_ids), str(folder), CONFIG)
    assert "1 images of the models" in caplog.text
    assert models[0].image_ids == [name for name in model.image_ids if name != gone]
    rows = by_id(images)
    assert {name for name, row in rows.items() if row["status"] == "registered"} == set(model.image_ids) - {gone}
    assert {rows[name]["reason"] for name in rows if rows[name]["model"] < 0} == {"in none of the models"}
    clusters = {rows[name]["cluster"] for name in image_ids}
    assert len(clusters) == 1 + sum(row["model"] < 0 for row in rows.values())
    # Who shares points with whom is what the model itself says, without the photo that is gone.
    own = tuples.images_table(model.image_ids, [0] * len(model.image_ids), [model], {})
    expected = {row["query"]: row for row in tuples.tuples_table(own, [model], min_shared=10).to_pylist()}
    assert len(found) >= 4
    for row in found.to_pylist():
        theirs = expected[row["query"]]
        kept = [at for at, name in enumerate(theirs["candidates"]) if name != gone]
        # Points that only the lost photo and one other saw are no points any more, and nobody shared them.
        assert row["candidates"] == [theirs["candidates"][at] for at in kept]
        assert row["shared_points"] == [theirs["shared_points"][at] for at in kept]
    counts = write(Folder.of(tmp_path), images, found, ())
    assert counts["registered"] + sum(counts["unregistered"].values()) == counts["images"] == len(image_ids)


@pytest.mark.parametrize("there, here", [("", "castle/"), ("", "set/castle/"), ("set/castle/", "castle/")])
def test_a_model_s_names_may_be_ends_of_the_photos_ids_or_the_other_way(
    mapped: tuple[Path, SparseModel], monkeypatch: pytest.MonkeyPatch, there: str, here: str
) -> None:
    _, model = mapped
    plain = [name.removeprefix("castle/") for name in model.image_ids]
    other = dataclasses.replace(model, image_ids=[there + name for name in plain])
    monkeypatch.setattr(mapping, "read_models", lambda _: [other])
    images, _, _ = from_models(listed([here + name for name in plain]), "x", CONFIG)
    assert {row["status"] for row in images.to_pylist()} == {"registered"}


def test_folders_tell_photos_of_one_file_name_apart(
    mapped: tuple[Path, SparseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every camera begins at 000.jpg: castle/000.jpg is neither church/000.jpg nor, of two castles, either."""
    _, model = mapped
    monkeypatch.setattr(mapping, "read_models", lambda _: [model])
    towns = [f"{town}/{name}" for town in ("a", "b") for name in model.image_ids[1:]]
    image_ids = [f"a/{model.image_ids[0]}", *(name.replace("castle", "church") for name in model.image_ids)]
    with pytest.raises(ValueError, match="No image of the models"):
        from_models(listed(sorted(towns)), "x", CONFIG)
    with pytest.raises(ValueError, match="No image of the models"):
        from_models(listed(sorted(image_ids)), "x", CONFIG)
    whole = [f"a/{name}" for name in model.image_ids] + [f"b/{name}" for name in ("church/000.jpg", "church/001.jpg")]
    images, _, _ = from_models(listed(sorted(whole)), "x", CONFIG)
    assert {name for name, row in by_id(images).items() if row["model"] >= 0} == {f"a/{n}" for n in model.image_ids}


def test_two_images_of_a_model_are_not_one_photo(
    mapped: tuple[Path, SparseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = mapped
    names = [*model.image_ids[:-1], "old/" + model.image_ids[0]]  # its end is a photo's id too
    monkeypatch.setattr(mapping, "read_models", lambda _: [dataclasses.replace(model, image_ids=names)])
    images, _, _ = from_models(listed(model.image_ids), "x", CONFIG)
    assert {n for n, row in by_id(images).items() if row["model"] >= 0} == set(model.image_ids[:-1])


def test_a_photo_s_own_name_goes_before_a_longer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """a/castle/000.jpg, which ends in a photo's id, comes first in the model, and is not that photo."""
    model = seen_in_part()
    several(monkeypatch, dataclasses.replace(model, image_ids=["a/castle/000.jpg", *NAMES[:-1]]))
    _, _, (own,) = from_models(listed(NAMES), "x", CONFIG)
    assert own.image_ids == NAMES[:-1]
    assert own.centres.tolist() == model.centres[1:].tolist()


def several(monkeypatch: pytest.MonkeyPatch, *models: SparseModel) -> None:
    monkeypatch.setattr(mapping, "read_models", lambda _: list(models))


def test_a_photo_of_two_models_stays_in_the_larger_and_each_model_is_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    model = seen_in_part()
    cut = [
        dataclasses.replace(model, image_ids=[f"{letter}.jpg" for letter in names]) for names in ("abcdef", "efghij")
    ]
    small = scene(["e.jpg", "f.jpg", "k.jpg"], [(image, point, 1.0) for image in range(3) for point in range(20)])
    several(monkeypatch, small, cut[1], cut[0])
    image_ids = [f"{letter}.jpg" for letter in "abcdefghijkl"]
    images, found, models = from_models(listed(image_ids), "x", CONFIG)
    rows = by_id(images)
    # Of one size, the first that was read comes first; of `small` one image is left, which is no model.
    first, second = [name[0] for name in models[0].image_ids], [name[0] for name in models[1].image_ids]
    assert (first, second, len(models)) == (list("efghij"), list("abcd"), 2)
    assert [rows[name]["model"] for name in image_ids] == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, -1, -1]
    clusters = [rows[name]["cluster"] for name in image_ids]
    assert clusters[:10] == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0] and len(set(clusters)) == 4
    assert {row["query"][0] for row in found.to_pylist()} == set("abcdefghij")


def test_images_under_other_names_keep_their_cameras_and_sightings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The photos' folders put the last image first, so that each moves one on."""
    seen = [(image, point, 1.0 + image + point) for image in range(3) for point in range(12 + image)]
    model = scene(["1.jpg", "2.jpg", "3.jpg"], seen)
    several(monkeypatch, model)
    _, found, (own,) = from_models(listed(["b/1.jpg", "c/2.jpg", "a/3.jpg"]), "x", CONFIG)
    assert own.image_ids == ["a/3.jpg", "b/1.jpg", "c/2.jpg"]
    assert own.centres.tolist() == model.centres[[2, 0, 1]].tolist()
    assert own.directions.tolist() == model.directions[[2, 0, 1]].tolist()
    for now, was in enumerate((2, 0, 1)):
        assert own.obs_scale[own.obs_image == now].tolist() == model.obs_scale[model.obs_image == was].tolist()
        assert own.obs_point[own.obs_image == now].tolist() == model.obs_point[model.obs_image == was].tolist()
    assert [row["query"] for row in found.to_pylist()] == own.image_ids


def test_models_are_divided_and_asked_for_shared_points_as_the_settings_say(mapped: tuple[Path, SparseModel]) -> None:
    pairs = covisible_pairs(mapped[1])
    for least in (1, 15, 25):
        _, found, _ = from_models(listed(NAMES), "sparse", ReconstructConfig(min_shared=least))
        got = {
            (row["query"], other) for row in found.to_pylist() for other in row["candidates"] if row["query"] < other
        }
        enough = pairs.shared >= least
        assert got == {(NAMES[a], NAMES[b]) for a, b in zip(pairs.first[enough], pairs.second[enough])} != set()


# ---- labels, and what is written ----


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
