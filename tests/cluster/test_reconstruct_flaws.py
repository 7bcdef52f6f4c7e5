"""Photos as people have them: broken, tiny, black, twice the same, or of nothing in common. The books balance."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ray_jobs import ingest, reconstruct
from ray_jobs.reconstruct import ReconstructJobConfig
from retrieval.artifacts import tuples
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.data.demo.places import write_scenes
from retrieval.data.demo.settings import SceneConfig
from retrieval.data.settings import SplitConfig
from retrieval.geometry import reconstruction
from retrieval.geometry.settings import ReconstructConfig
from retrieval.images.pixels import encode_jpeg
from retrieval.training.tuple_mining import mine_negatives
from tests.support.places import PREPARE, collect

ROOT = Path(__file__).resolve().parents[2]
SCENES = SceneConfig(num_places=2, images_per_place=6, num_distractors=2, size=360, seed=2)
RECONSTRUCT = ReconstructConfig(num_words=512, num_candidates=8, max_features=1024, min_shared=10)
ALL_TRAIN = SplitConfig(keep_singles=True, test_fraction=0, val_fraction=0)
TWICE, COPY, SAME = "place_000/002.jpg", "place_000/002-copy.jpg", "place_000/002-sent.jpg"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two places and two distractors, no labels, and five files that somebody put among them."""
    folder = tmp_path_factory.mktemp("flaws") / "photos"
    write_scenes(folder, SCENES).unlink()
    (folder / "place_000/broken.jpg").write_text("this is no photo")
    tiny = BytesIO()
    Image.new("RGB", (3, 3), (200, 10, 10)).save(tiny, "JPEG")
    (folder / "place_000/tiny.jpg").write_bytes(tiny.getvalue())
    (folder / "place_001/black.jpg").write_bytes(encode_jpeg(np.zeros((240, 320, 3), np.uint8)))
    shutil.copy(folder / TWICE, folder / COPY)
    # The same picture in a file that is not the same, as a messenger or an editor leaves it: the bytes tell nothing.
    (folder / SAME).write_bytes((folder / TWICE).read_bytes() + b"sent by somebody")
    return folder


@pytest.fixture(scope="module")
def made(photos: Path, ray_local: None) -> Path:
    """The collection and the tuples, by the jobs."""
    root = photos.parent
    where: dict[str, Any] = {"source": str(photos), "out": str(root / "collection"), "layout": "folder"}
    ingest.main(ingest.IngestConfig(**where, prepare=PREPARE, split=ALL_TRAIN, part_size=6))
    places: dict[str, Any] = {"collection": str(root / "collection"), "out": str(root / "tuples")}
    reconstruct.main(ReconstructJobConfig(**places, reconstruct=RECONSTRUCT))
    return root


def test_every_photo_is_in_the_books_once_with_stage_and_reason(made: Path) -> None:
    collection = Folder.of(made / "collection")
    sealed, found = read_manifest(collection, "collection"), read_manifest(Folder.of(made / "tuples"), "tuples")
    names = [name for name in collection.list() if name.startswith("rejected/")]
    rejected = {row["image_id"]: row for name in names for row in collection.read_table(name).to_pylist()}
    told = {name: (row["stage"], row["reason"]) for name, row in rejected.items()}
    assert told == {
        "place_000/broken.jpg": ("decode", "not-an-image"),
        "place_000/tiny.jpg": ("decode", "too-small"),
    }
    catalog = {row["image_id"]: row for row in collection.read_table("catalog.parquet").to_pylist()}
    assert catalog[COPY]["split"] == "dropped" or catalog[TWICE]["split"] == "dropped"
    num = SCENES.num_places * SCENES.images_per_place + SCENES.num_distractors
    assert sealed.counts["source"] == num + 5 == sealed.counts["stored"] + sealed.counts["rejected"]
    (book,) = found.books
    assert book["taken"] == num + 2 == book["kept"] + sum(book["rejected"].values())  # with the black and the same one
    images = {row["image_id"]: row for row in Folder.of(made / "tuples").read_table("images.parquet").to_pylist()}
    assert set(images) == {name for name, row in catalog.items() if row["split"] == "train"}
    assert images["place_001/black.jpg"]["reason"] == reconstruction.NO_KEYPOINTS
    assert book["rejected"][reconstruction.NO_KEYPOINTS] == 1


def test_a_photo_that_is_there_twice_harms_nothing(made: Path) -> None:
    known = tuples.read_tuples(Folder.of(made / "tuples"))
    images = Folder.of(made / "tuples").read_table("images.parquet").to_pylist()
    registered = [row["image_id"] for row in images if row["status"] == "registered"]
    for place in ("place_000", "place_001"):
        assert sum(name.startswith(place) for name in registered) >= 0.8 * SCENES.images_per_place
    models = {row["model"] for row in images if row["image_id"].startswith("place_000") and row["model"] >= 0}
    assert len(models) == 1
    row_of = {name: row for row, name in enumerate(known.image_ids)}
    (twice,) = {TWICE, COPY} & set(row_of)
    pair = [row_of[twice], row_of[SAME]]
    assert len(set(known.clusters[pair])) == 1
    vectors = torch.randn(len(row_of), 8, generator=torch.Generator().manual_seed(0))
    vectors[pair[1]] = vectors[pair[0]]  # a network cannot tell them apart, so each is the other's nearest
    mined = mine_negatives(vectors[pair], known.clusters[pair], vectors, known.clusters, num=3)
    assert not set(pair) & set(mined.ravel().tolist())


def test_no_overlap_at_all_ends_the_command_with_advice_and_leaves_no_tuples(tmp_path: Path) -> None:
    scenes = SceneConfig(num_places=1, images_per_place=1, num_distractors=4, size=240)
    collect(Folder.of(tmp_path / "collection"), write_scenes(tmp_path / "photos", scenes), ALL_TRAIN)
    command = [sys.executable, "-m", "ray_jobs.reconstruct"]
    command += ["--collection", str(tmp_path / "collection"), "--out", str(tmp_path / "tuples")]
    command += ["--reconstruct.max-features", "512", "--reconstruct.num-words", "128"]
    # A cluster of its own, as on a laptop, beside that of the other tests.
    env = {**os.environ, "RAY_ADDRESS": "local"}
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, timeout=300)
    assert done.returncode == 2, done.stdout + done.stderr
    (told,) = [line for line in done.stderr.splitlines() if "No two of the 5 photos share a place" in line]
    assert "Give more photos of each place" in told and "--labels-as-clusters" in told
    left = {path.name for path in (tmp_path / "tuples").iterdir()}
    assert not left & {"tuples.parquet", "images.parquet", "manifest.json", "models"}
