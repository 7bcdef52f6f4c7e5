"""The whole landmark road by one call, on photos that nobody labelled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ray_jobs import pipeline
from ray_jobs.presets import DEMO_LANDMARKS
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.published import read_current
from retrieval.data.demo.places import write_scenes
from retrieval.data.demo.settings import SceneConfig
from retrieval.geometry.settings import ReconstructConfig


def test_unlabelled_photos_become_a_service_scored_on_mined_places(tmp_path: Path, ray_local: None) -> None:
    scenes = SceneConfig(num_places=5, images_per_place=6, num_distractors=5, size=360, seed=5)
    write_scenes(tmp_path / "photos", scenes)
    base = DEMO_LANDMARKS
    cfg = replace(
        base,
        source=str(tmp_path / "photos"),
        layout="folder",  # the manifest that lies there would label them
        workspace=str(tmp_path / "work"),
        reconstruct=ReconstructConfig(num_words=512, num_candidates=8, max_features=1536, min_shared=10),
        siamese=replace(base.siamese, epochs=1, num_negatives=2, image_size=128),
        model=replace(base.model, image_size=128, embedding_dim=16),
        scales=(1.0,),
        rerank=0,
        num_workers=0,
    )
    folders = pipeline.main(cfg)
    assert read_manifest(folders["collection"]).counts["train"] == 35
    metrics = folders["report"].read_json("metrics.json")
    assert metrics["order"] == ["before", "after"]
    assert metrics["data"]["protocol"] == "places mined for validation"
    assert metrics["data"]["num_queries"] >= 6 and metrics["systems"]["after"]["recall@1"] > 0
    assert {"report.html", "reconstructed_place_1.png", "training_tuples.jpg"} <= set(folders["report"].list())
    published = read_current(Folder.of(cfg.workspace))
    assert str(published["model"]) == str(folders["model"])

    made = {name: read_manifest(folder).fingerprint for name, folder in folders.items()}
    again = pipeline.main(cfg)
    assert {name: read_manifest(folder).fingerprint for name, folder in again.items()} == made
