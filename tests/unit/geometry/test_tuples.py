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
from retrieval.data.demo.places import building, photograph
from retrieval.data.demo.settings import SceneConfig
from retrieval.geometry import mapping, tuples
from retrieval.geometry.features import extract, pycolmap, verify
from retrieval.geometry.mapping import map_images, read_models
from retrieval.geometry.settings import ReconstructConfig
from retrieval.geometry.sparse_model import SparseModel, read_model, write_model
from retrieval.geometry.tuples import from_models, write
from retrieval.images.pixels import encode_jpeg


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


def test_models_come_back_from_storage(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    write_model(folder, 0, MODEL)
    again = read_model(folder, 0)
    assert again.image_ids == MODEL.image_ids
    for name in ("centres", "directions", "points", "colours", "obs_image", "obs_point", "obs_scale"):
        assert np.array_equal(getattr(again, name), getattr(MODEL, name)), name


# -- COLMAP models of a drawn place, on disk ---------------------------------------------------------------------------


CONFIG = ReconstructConfig(min_shared=10, val_fraction=0)
SCENE = SceneConfig(num_places=1, images_per_place=6, size=360, seed=2)
NAMES = [f"castle/{number:03d}.jpg" for number in range(SCENE.images_per_place)]


def listed(image_ids: Sequence[str]) -> pa.Table:
    return pa.table({"image_id": pa.array(image_ids, pa.string()), "label": pa.nulls(len(image_ids), pa.string())})


def by_id(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for row in table.to_pylist()}


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SparseModel]:
    """A folder with the model that COLMAP itself wrote of a drawn place, in binary; and the model as `sfm` gave it."""
    folder, features = tmp_path_factory.mktemp("colmap") / "sparse", {}
    for number, name in enumerate(NAMES):
        data = encode_jpeg(photograph(building(2, 0), SCENE, 0, number))
        features[name] = extract(data, max_features=1024)
    pairs = [(a, b) for at, a in enumerate(NAMES) for b in NAMES[at + 1 :]]
    checked = [(a, b, verify(features[a], features[b])) for a, b in pairs]
    incremental = pycolmap.incremental_mapping

    def kept(*args: Any) -> Any:
        found = incremental(*args)
        for number, model in found.items():
            (folder / str(number)).mkdir(parents=True)
            model.write(folder / str(number))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pycolmap, "incremental_mapping", kept)
        models = map_images(features, [(a, b, done.matches) for a, b, done in checked if done.num_inliers >= 15])
    assert len(models) == 1 and len(models[0].image_ids) >= 5
    return folder, models[0]


def test_a_model_on_disk_is_the_model_that_was_mapped(mapped: tuple[Path, SparseModel], tmp_path: Path) -> None:
    folder, model = mapped
    as_text = tmp_path / "0"
    as_text.mkdir()
    pycolmap.Reconstruction(folder / "0").write_text(as_text)
    for where in (folder, folder / "0", tmp_path):
        (read,) = read_models(where)
        assert read.image_ids == model.image_ids
        for name in ("centres", "directions", "points", "obs_scale"):
            assert np.allclose(getattr(read, name), getattr(model, name), rtol=1e-6), name
        for name in ("obs_image", "obs_point"):
            assert np.array_equal(getattr(read, name), getattr(model, name)), name
    with pytest.raises(ValueError, match="No COLMAP model"):
        read_models(tmp_path / "absent")


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
