"""Local features on a real local Ray: a killed worker changes nothing, and re-ranking counts by what is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ray_jobs import describe, evaluate
from ray_jobs.describe import DescribeConfig
from retrieval.artifacts.collection import read_catalog
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.geometry.settings import FeatureConfig
from retrieval.search import rerank
from tests.cluster.killing import killed_when
from tests.support.local import random_aliked
from tests.support.places import small_places

pytestmark = pytest.mark.usefixtures("ray_local")


def test_learned_features_are_taken_once_and_counted_by(tmp_path: Path) -> None:
    collection = small_places(tmp_path)
    (tmp_path / "aliked.safetensors").write_bytes(random_aliked())
    learned = FeatureConfig(
        extractor="aliked", weights=str(tmp_path / "aliked.safetensors"), max_features=200, max_side=256
    )
    one, two = (
        DescribeConfig(collection=collection.uri, out=str(tmp_path / name), features=learned) for name in ("f", "g")
    )
    made = describe.main(one)
    with killed_when(lambda: (tmp_path / "g/features/part-00000.parquet").exists(), "extract_part") as killed:
        again = describe.main(two)
    assert killed and again.fingerprint == made.fingerprint, "the work of two runs, one of them broken, is the same"
    assert made.books[0]["taken"] == 21 and read_manifest(Folder.of(two.out), "features") == again
    photos = read_catalog(collection, ("train",))
    places = np.stack([photos[name].to_numpy() for name in ("part", "row")], axis=1).astype(np.int64)
    found = np.stack([places[[(at + step) % 21 for step in range(3)]] for at in range(21)])
    counts = evaluate.count_inliers(collection, places, found, Folder.of(one.out))
    assert (counts[:, 0] > 60).all(), "a photo fits itself"
    assert counts.tolist() == rerank.count_inliers(collection, places, found, Folder.of(one.out)).tolist()
    assert counts.tolist() != evaluate.count_inliers(collection, places, found, None).tolist()
