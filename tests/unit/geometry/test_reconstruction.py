"""From unordered photos to tuples: drawn places that COLMAP truly reconstructs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.collection import CATALOG_SCHEMA
from retrieval.artifacts.folder import Folder
from retrieval.data.demo.places import write_scenes
from retrieval.data.demo.settings import SceneConfig
from retrieval.data.settings import SplitConfig
from retrieval.geometry import extraction, reconstruction
from retrieval.geometry.settings import FeatureConfig, ReconstructConfig
from retrieval.geometry.stages import write_left_out
from retrieval.images.pixels import BadImage, encode_jpeg
from tests.support.places import SMALL, collect, reconstruct_here, small_places

CONFIG = ReconstructConfig(num_words=512, num_candidates=8, max_features=1024, min_shared=10)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return small_places(tmp_path_factory.mktemp("places"))


@pytest.fixture(scope="module")
def found(places: Folder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, dict[str, object]]:
    out = Folder.of(tmp_path_factory.mktemp("tuples"))
    return out, reconstruct_here(places, out, CONFIG)


def place_of(image_id: str) -> str:
    return image_id.split("/")[-2] if "place" in image_id else image_id


def test_every_place_is_reconstructed_and_the_books_balance(found: tuple[Folder, dict[str, object]]) -> None:
    out, counts = found
    images = out.read_table("images.parquet").to_pylist()
    registered = [row for row in images if row["status"] == "registered"]
    assert counts["models"] == SMALL.num_places
    assert len(registered) >= 0.8 * SMALL.num_places * SMALL.images_per_place
    assert len(registered) + sum(counts["unregistered"].values()) == len(images) == 21  # type: ignore[attr-defined]
    assert all((row["reason"] is None) == (row["model"] >= 0) == (row["num_points"] > 0) for row in images)
    for row in images:
        if "distractors" in row["image_id"]:
            assert (row["status"], row["reason"]) == ("unregistered", reconstruction.NO_LINK)


def test_no_model_mixes_places_and_positives_are_of_the_same_place(found: tuple[Folder, dict[str, object]]) -> None:
    out, _ = found
    images = out.read_table("images.parquet").to_pylist()
    for kind in ("model", "cluster"):
        places_of: dict[int, set[str]] = {}
        for row in images:
            places_of.setdefault(row[kind], set()).add(place_of(row["image_id"]))
        places_of.pop(-1, None)
        assert all(len(names) == 1 for names in places_of.values()), kind
    rows = out.read_table("tuples.parquet").to_pylist()
    pairs = [(row["query"], other) for row in rows for other in row["candidates"]]
    assert len(pairs) > 30
    assert all(place_of(a) == place_of(b) and a != b for a, b in pairs)


def test_a_negative_is_never_of_the_query_s_place(found: tuple[Folder, dict[str, object]]) -> None:
    """Negatives come from other clusters: so all photos of a place are in one, but those that nothing links to it."""
    out, _ = found
    images = out.read_table("images.parquet").to_pylist()
    cluster_of = {row["image_id"]: row["cluster"] for row in images}
    unlinked = {row["image_id"] for row in images if row["reason"] == reconstruction.NO_LINK}
    assert sum(name not in unlinked for name in cluster_of) >= 15
    for row in out.read_table("tuples.parquet").to_pylist():
        same = [name for name in cluster_of if place_of(name) == place_of(row["query"]) and name not in unlinked]
        assert {cluster_of[name] for name in same} == {row["cluster"]} == {cluster_of[row["query"]]}
    for name in unlinked:
        assert sum(cluster == cluster_of[name] for cluster in cluster_of.values()) == 1


def test_the_same_photos_give_the_same_tuples_whatever_is_done_again(
    places: Folder, found: tuple[Folder, dict[str, object]], tmp_path: Path
) -> None:
    out, _ = found
    again = Folder.of(tmp_path / "again")
    shutil.copytree(out.path, again.path)
    lost = (
        "features/part-00001",
        "words/part-00000",
        "candidates/block-00001",
        "pairs/round-1",
        "links/round-0/block-00000",
        "tuples",
    )
    for name in lost:
        again.remove(f"{name}.parquet")
    shutil.rmtree(Path(again.path) / "groups" / "00001")
    reconstruct_here(places, again, CONFIG)
    for name in ("pairs/round-1.parquet", "images.parquet", "tuples.parquet"):
        assert again.read_table(name).equals(out.read_table(name))


def test_features_kept_before_give_the_same_tuples_and_are_not_taken_again(
    places: Folder, found: tuple[Folder, dict[str, object]], tmp_path: Path
) -> None:
    """Who was left out when they were taken is left out here, for that reason."""
    whole, counts = found
    described, out = Folder.of(tmp_path / "described"), Folder.of(tmp_path / "out")
    shutil.copytree(Path(whole.path) / "features", Path(described.path) / "features")
    lonely = next(
        row["image_id"]
        for row in whole.read_table("images.parquet").to_pylist()
        if row["reason"] == reconstruction.NO_LINK
    )
    write_left_out(described, "features", 0, {lonely: BadImage("crashed", "SIGSEGV"), "elsewhere": BadImage("x", "y")})
    made = reconstruct_here(places, out, CONFIG, described=described)
    assert not [name for name in out.list() if name.startswith("features")]
    assert out.read_table("tuples.parquet").equals(whole.read_table("tuples.parquet"))
    assert made["registered"] == counts["registered"] and made["unregistered"]["crashed"] == 1
    assert sum(made["unregistered"].values()) == sum(counts["unregistered"].values())  # type: ignore[attr-defined]


def test_fewer_pairs_are_checked_than_there_are(found: tuple[Folder, dict[str, object]]) -> None:
    out, _ = found
    assert len(out.read_table("pairs/round-0.parquet")) < 21 * 20 / 2


def test_one_photo_has_no_pair(tmp_path: Path) -> None:
    scenes = SceneConfig(num_places=1, images_per_place=1, num_distractors=0, size=256)
    split = SplitConfig(keep_singles=True, test_fraction=0, val_fraction=0)
    collection = collect(Folder.of(tmp_path / "c"), write_scenes(tmp_path / "photos", scenes), split)
    with pytest.raises(ValueError, match="No two of the 1 photos share a place"):
        reconstruct_here(collection, Folder.of(tmp_path / "out"), CONFIG)
    assert not len(Folder.of(tmp_path / "out").read_table("pairs/round-0.parquet"))


def test_photos_that_share_nothing_make_no_tuples(tmp_path: Path) -> None:
    source = write_scenes(
        tmp_path / "photos", SceneConfig(num_places=1, images_per_place=1, num_distractors=5, size=256)
    )
    split = SplitConfig(keep_singles=True, test_fraction=0, val_fraction=0)
    collection = collect(Folder.of(tmp_path / "c"), source, split)
    with pytest.raises(ValueError, match="No two of the 6 photos share a place.*--labels-as-clusters"):
        reconstruct_here(collection, Folder.of(tmp_path / "out"), CONFIG)


def test_only_blank_photos_are_refused(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path / "c")
    black = encode_jpeg(np.zeros((200, 300, 3), np.uint8))
    folder.write_table("images/part-00000.parquet", pa.table({"jpeg": [black, black]}))
    rows = [{"image_id": name, "split": "train", "part": 0, "row": row} for row, name in enumerate("ab")]
    folder.write_table("catalog.parquet", pa.Table.from_pylist(rows, CATALOG_SCHEMA))
    with pytest.raises(ValueError, match="None of the 2 photos shows any local feature"):
        reconstruct_here(folder, Folder.of(tmp_path / "out"), CONFIG)


def test_a_photo_that_ends_its_worker_has_no_features_and_is_listed(places: Folder, tmp_path: Path) -> None:
    out, settings = Folder.of(tmp_path), FeatureConfig(max_features=64)
    told: list[Any] = []
    names = extraction.try_features(places, out, 0, ("train",), settings, [1], lambda *tell: told.append(tell))
    assert told == [("photos", 0, 1), ("photos", 1, 1)] and not out.list()
    left = {1: BadImage("timed-out", "not done within 3 s")}
    done = extraction.extract_part(places, out, 0, ("train",), settings, without=left)
    assert (done["taken"], done["broken"]) == (len(names), 1)
    rows = out.read_table("features/part-00000.parquet").to_pylist()
    assert [row["image_id"] for row in rows] == names
    assert rows[1]["num"] == 0 and all(row["num"] > 0 for row in rows[2:])
    assert reconstruction.left_out(out) == {names[1]: "timed-out"}
