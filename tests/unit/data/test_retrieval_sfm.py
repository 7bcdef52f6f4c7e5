"""Tuples that others found: COLMAP models of a drawn place on disk, and the retrieval-SfM database's pickle."""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.data import retrieval_sfm
from retrieval.data.demo.places import building, photograph
from retrieval.data.demo.settings import SceneConfig
from retrieval.geometry import mapping, tuples
from retrieval.geometry.features import extract, pycolmap, verify
from retrieval.geometry.mapping import map_images, read_models
from retrieval.geometry.settings import ReconstructConfig
from retrieval.geometry.sparse_model import SparseModel
from retrieval.geometry.tuples import from_models, write
from retrieval.images.pixels import encode_jpeg

CONFIG = ReconstructConfig(min_shared=10, val_fraction=0)
SCENE = SceneConfig(num_places=1, images_per_place=6, size=360, seed=2)
NAMES = [f"castle/{number:03d}.jpg" for number in range(SCENE.images_per_place)]


def listed(image_ids: Sequence[str]) -> pa.Table:
    return pa.table({"image_id": pa.array(image_ids, pa.string()), "label": pa.nulls(len(image_ids), pa.string())})


def by_id(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for row in table.to_pylist()}


# -- COLMAP models ---------------------------------------------------------------------------------------------------


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


# -- the retrieval-SfM database --------------------------------------------------------------------------------------


def database(**changes: Any) -> dict[str, Any]:
    """Two places of three photos to train, one of two to validate; one photo alone in its cluster."""
    train = {"cids": list("abcdefx"), "cluster": [0, 0, 0, 1, 1, 1, 2], "qidxs": [0, 0, 3, 4], "pidxs": [1, 2, 4, 5]}
    val = {"cids": list("uv"), "cluster": [0, 0], "qidxs": [1], "pidxs": [0]}
    return {"train": train | changes, "val": val}


def stored(tmp_path: Path, value: Any) -> str:
    (tmp_path / "retrieval-SfM-tiny.pkl").write_bytes(pickle.dumps(value, protocol=2))
    return str(tmp_path / "retrieval-SfM-tiny.pkl")


def test_a_database_s_pairs_and_clusters_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image_ids = [f"ims/{name}" for name in "abcdefuvxz"]
    numbers = {name: np.array(database()["train"][name]) for name in ("cluster", "qidxs", "pidxs")}
    for value in (database(), database(**numbers)):
        images, found = retrieval_sfm.from_database(listed(image_ids), stored(tmp_path, value))
        assert not caplog.text
        known = {row["query"][4:]: [name[4:] for name in row["candidates"]] for row in found.to_pylist()}
        assert known == {"a": ["b", "c"], "d": ["e"], "e": ["f"], "v": ["u"]}
        rows = by_id(images)
        clusters = [{rows[f"ims/{name}"]["cluster"] for name in names} for names in ("abc", "def", "uv", "x", "z")]
        assert [len(own) for own in clusters] == [1] * 5 and len(set().union(*clusters)) == 5
        assert {row["split"] for name, row in rows.items() if name[4:] in "uv"} == {"val"}
        assert (rows["ims/z"]["status"], rows["ims/z"]["reason"]) == ("unregistered", "not in the database")
        counts = write(Folder.of(tmp_path / "out"), images, found, ())
        assert (counts["images"], counts["registered"], counts["unregistered"]) == (10, 9, {"not in the database": 1})


def test_photos_that_are_missing_are_counted_and_take_their_pairs_along(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = stored(tmp_path, database())
    images, found = retrieval_sfm.from_database(listed([f"ims/{name}.jpg" for name in "acdefu"]), path)
    assert "3 images of" in caplog.text  # b, x and v
    assert [row["query"] for row in found.to_pylist()] == ["ims/a.jpg", "ims/d.jpg", "ims/e.jpg"]
    assert found["candidates"].to_pylist()[0] == ["ims/c.jpg"]
    assert len(images) == 6
    with pytest.raises(ValueError, match="No pair of .* is among the 2 photos"):
        retrieval_sfm.from_database(listed(["ims/a", "ims/u"]), path)


class Attack:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_a_database_that_would_run_something_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = stored(tmp_path, database(qidxs=Attack(mark)))
    with pytest.raises(ValueError, match=r"wants to use \w+.system.*Do not trust this file"):
        retrieval_sfm.from_database(listed(["ims/a"]), path)
    assert not mark.exists()


@pytest.mark.parametrize("value", [{}, [1], {"train": {}}, {"train": database()["train"]}, "text"])
def test_what_is_no_database_is_said(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ValueError, match="it is not a retrieval-SfM database file"):
        retrieval_sfm.from_database(listed(["ims/a"]), stored(tmp_path, value))
