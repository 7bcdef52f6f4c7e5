"""The whole roads by one call each, on photos that nobody labelled."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from ray_jobs import pipeline
from ray_jobs.presets import FACES
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.published import read_current
from retrieval.data.demo.faces import draw_collection
from retrieval.data.demo.places import write_scenes
from retrieval.evaluation.clustering import clustering_metrics
from retrieval.grouping.settings import GroupingConfig
from tests.support.road import SCENES, SMALL_LANDMARKS


def test_unlabelled_photos_become_a_service_scored_on_mined_places(tmp_path: Path, ray_local: None) -> None:
    write_scenes(tmp_path / "photos", SCENES)
    cfg = replace(SMALL_LANDMARKS, source=str(tmp_path / "photos"), workspace=str(tmp_path / "work"))
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


def test_people_whom_nobody_named_are_found_and_keep_their_numbers_when_photos_come(
    tmp_path: Path, ray_local: None
) -> None:
    """With the networks of the development packages, on drawn people, in folders that are no people."""
    drawn = tmp_path / "drawn"
    draw_collection(drawn, num_identities=8, images_per_identity=5, seed=3)
    lines = [line.split() for line in (drawn / "identity_CelebA.txt").read_text().splitlines()]
    names = {name: f"{2019 + number % 2}/IMG_{number:04}.jpg" for number, (name, _) in enumerate(lines)}
    truth = {names[name]: person for name, person in lines}

    def copy(some: list[list[str]]) -> None:
        for name, _ in some:
            there = tmp_path / "photos" / names[name]
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(drawn / "img_align_celeba" / name, there)

    copy(lines[:-5])
    # Drawn people are nearer to each other than real ones: strangers reach 0.69 where real ones reach 0.4.
    alike = GroupingConfig(threshold=0.7)
    cfg = replace(FACES, source=str(tmp_path / "photos"), workspace=str(tmp_path / "work"), grouping=alike)
    made = pipeline.main(cfg)
    assert set(made) == {"collection", "model", "index", "people"}
    assert read_manifest(made["collection"]).counts["identities"] == 0, "2019 and 2020 are no people"
    first = people_of(made["people"])
    found = clustering_metrics(first.values(), [truth[name] for name in first])
    assert found.bcubed_precision > 0.9 and found.bcubed_recall > 0.6
    assert pipeline.main(cfg)["people"] == made["people"], "nothing changed: nothing is done"

    copy(lines[-5:])
    later = people_of(pipeline.main(cfg)["people"])
    assert len(later) > len(first)
    assert {name: later[name] for name, person in first.items() if person} == {
        name: person for name, person in first.items() if person
    }
    assert read_current(Folder.of(cfg.workspace))["people"] != made["people"]


def people_of(folder: Folder) -> dict[str, int | None]:
    """Whom each photo shows, by number; None: nobody else."""
    rows = folder.read_table("people.parquet").to_pylist()
    return {row["image_id"]: row["person"] for row in rows}
