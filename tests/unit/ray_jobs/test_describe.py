"""Local features of a collection: over all its parts, books that are the photos', weights known by what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from ray_jobs import describe
from ray_jobs.describe import DescribeConfig, network_of
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.geometry import extraction
from retrieval.geometry.settings import FeatureConfig
from retrieval.geometry.stages import write_left_out
from retrieval.images.pixels import BadImage
from retrieval.models.known_weights import FOLDER, KNOWN
from tests.conftest import REAL_DATA
from tests.support.inline import Cluster, install
from tests.support.local import random_aliked
from tests.support.places import small_places

SMALL = FeatureConfig(max_features=20, max_side=96)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return small_places(tmp_path_factory.mktemp("places"))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return install(monkeypatch, describe)


def job(places: Folder, out: Path, **settings: Any) -> DescribeConfig:
    usual: dict[str, Any] = {"features": SMALL}
    return DescribeConfig(collection=places.uri, out=str(out), **(usual | settings))


def test_all_parts_are_described_once_and_the_books_balance(places: Folder, tmp_path: Path, cluster: Cluster) -> None:
    made = describe.main(job(places, tmp_path / "f", cpus_per_task=0.5))
    (call,) = cluster.parts
    assert (call["name"], call["parts"], call["total_items"]) == ("features", [0, 1, 2], 21)
    assert call["needs"].cpus == 0.5 and call["attempt"] is extraction.try_features
    assert made.books == [{"stage": "describe", "taken": 21, "kept": 21, "rejected": {}}]
    assert made.counts["photos"] == 21 and 200 < made.counts["features"] <= 420
    assert made.inputs == {"collection": read_manifest(places).fingerprint}
    assert describe.main(job(places, tmp_path / "f")).fingerprint == made.fingerprint and len(cluster.parts) == 1
    with pytest.raises(ValueError, match="max_features"):
        describe.main(job(places, tmp_path / "f", features=FeatureConfig(max_features=21, max_side=96)))


def test_a_photo_that_was_left_out_is_in_the_books(
    places: Folder, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaves_one_out(part: int, out: Folder, **_: Any) -> dict[str, int]:
        if part == 1:
            write_left_out(out, "features", part, {"a.jpg": BadImage("crashed", "SIGSEGV")})
        return {"taken": 7, "features": 5, "broken": int(part == 1)}

    monkeypatch.setattr(extraction, "extract_part", leaves_one_out)
    made = describe.main(job(places, tmp_path / "f"))
    assert made.books == [{"stage": "describe", "taken": 21, "kept": 20, "rejected": {"crashed": 1}}]


def test_a_network_is_known_by_its_weights_and_lies_beside_its_features(
    places: Folder, tmp_path: Path, cluster: Cluster
) -> None:
    """The same weights in another file are the same work; others are not."""
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        (tmp_path / f"{name}.safetensors").write_bytes(random_aliked(seed))
    learned = {
        name: FeatureConfig(
            extractor="aliked", weights=str(tmp_path / f"{name}.safetensors"), max_features=20, max_side=96
        )
        for name in ("one", "same", "other")
    }
    made = describe.main(job(places, tmp_path / "f", features=learned["one"]))
    assert "safetensors" not in made.config["features"]["weights"]
    assert Folder.of(tmp_path / "f").read_bytes(extraction.NETWORK) == random_aliked()
    kept = extraction.KeptFeatures(Folder.of(tmp_path / "f"))
    assert kept[0, 0].descriptors.dtype == "float16"
    assert describe.main(job(places, tmp_path / "f", features=learned["same"])).fingerprint == made.fingerprint
    with pytest.raises(ValueError, match="weights"):
        describe.main(job(places, tmp_path / "f", features=learned["other"]))


def test_what_cannot_be_is_said_at_once(places: Folder, tmp_path: Path, cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="cpus_per_task is 0"):
        job(places, tmp_path, cpus_per_task=0)
    with pytest.raises(ValueError, match="No weights file at"):
        describe.main(job(places, tmp_path / "f", features=FeatureConfig(extractor="aliked", weights="/no.pth")))
    assert not (tmp_path / "f").exists(), "nothing was begun"
    with pytest.raises(ValueError, match="has no photo in the splits query"):
        describe.main(job(places, tmp_path / "g", splits=("query",)))


def test_weights_are_taken_by_name_or_from_either_kind_of_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = safetensors.torch.load(random_aliked())
    torch.save(state, tmp_path / "w.pth")
    (tmp_path / "w.safetensors").write_bytes(random_aliked())
    for name in ("w.pth", "w.safetensors"):
        assert network_of(FeatureConfig(extractor="aliked", weights=str(tmp_path / name))) == random_aliked()
    assert network_of(FeatureConfig()) is None
    (tmp_path / "text.pth").write_text("no weights")
    monkeypatch.setenv(FOLDER, str(tmp_path))
    for name, said in (
        (f"{tmp_path}/text.pth", "is not a readable weights file"),
        ("sface", "'sface' is SFace.*Local features need aliked-n16"),
        ("aliked-n16", "The weights aliked-n16 are not here. .*ray_jobs.weights --fetch aliked-n16"),
    ):
        with pytest.raises(ValueError, match=said):
            network_of(FeatureConfig(extractor="aliked", weights=name))
    (tmp_path / KNOWN["aliked-n16"].file).write_bytes((tmp_path / "w.pth").read_bytes())
    with pytest.raises(ValueError, match="is not aliked-n16 as it was published"):
        network_of(FeatureConfig(extractor="aliked", weights="aliked-n16"))


@pytest.mark.realdata
def test_the_published_weights_are_found_by_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(REAL_DATA / "weights"))
    network = network_of(FeatureConfig(extractor="aliked", weights="aliked-n16"))
    assert network is not None and len(network) > 2_000_000
