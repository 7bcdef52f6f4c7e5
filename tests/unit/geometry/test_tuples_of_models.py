"""Tuples of models that somebody else made: whose photos they are, and what is kept of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.geometry import mapping, tuples
from retrieval.geometry.settings import ReconstructConfig
from retrieval.geometry.sparse_model import SparseModel, covisible_pairs
from retrieval.geometry.tuples import from_models, write
from tests.support.tuples import scene

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
