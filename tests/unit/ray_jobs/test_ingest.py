"""A source becomes a collection: all its parts, under the settings that decide."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from ray_jobs import ingest
from ray_jobs.ingest import IngestConfig
from retrieval.artifacts.manifest import read_manifest
from retrieval.data.demo.faces import draw_collection
from retrieval.data.settings import SplitConfig
from retrieval.images.settings import PrepareConfig
from tests.support.inline import install


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 drawn photos, one of them no image."""
    folder = tmp_path_factory.mktemp("photos")
    draw_collection(folder, num_identities=5, images_per_identity=4, seed=1, size=(60, 72))
    first = min(folder.rglob("*.jpg"))
    first.write_bytes(b"no image")
    return folder


def config(photos: Path, out: Path, **settings: Any) -> IngestConfig:
    given = {"prepare": PrepareConfig(size=48, crop="none"), "part_size": 8, **settings}
    return IngestConfig(source=str(photos), out=str(out), **given)


def test_every_photo_is_in_the_books_and_a_second_run_changes_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = install(monkeypatch, ingest)
    caplog.set_level(logging.INFO)
    out = ingest.main(config(photos, tmp_path / "c", split=SplitConfig(test_fraction=0.4)))
    made = read_manifest(out, "collection")
    assert [(book["taken"], book["kept"]) for book in made.books][:2] == [(20, 20), (20, 19)]
    (call,) = cluster.parts
    assert (call["parts"], call["total_items"], call["needs"].cpus) == ([0, 1, 2], 20, 1.0)
    assert made.inputs == {"source": ingest.source_fingerprint(str(photos))}
    assert any("20 in, 19 kept, rejected: 1 " in record.getMessage() for record in caplog.records)
    assert made.config["split"]["test_fraction"] == 0.4 and made.config["part_size"] == 8
    assert "source" not in made.config and "cpus_per_part" not in made.config and "out" not in made.config
    again = ingest.main(config(photos, tmp_path / "c", split=SplitConfig(test_fraction=0.4), cpus_per_part=0.5))
    assert read_manifest(again) == made and len(cluster.parts) == 1
    with pytest.raises(ValueError, match=r"config.prepare"):
        ingest.main(config(photos, tmp_path / "c", prepare=PrepareConfig(size=56, crop="none")))


def test_parts_that_are_done_are_kept(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch, ingest)
    caplog.set_level(logging.INFO)
    made = read_manifest(ingest.main(config(photos, tmp_path / "undisturbed")))
    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr("retrieval.data.catalog.seal_collection", lambda *_: 1 / 0)
        ingest.main(config(photos, tmp_path / "c", cpus_per_part=0.25))
    again = ingest.main(config(photos, tmp_path / "c"))
    assert read_manifest(again).fingerprint == made.fingerprint
    assert any("3 of 3 parts had been done before" in record.getMessage() for record in caplog.records)


def test_a_source_is_known_by_its_photos_and_not_by_its_place(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    cluster = install(monkeypatch, ingest)
    known = ingest.source_fingerprint(str(photos))
    shutil.copytree(photos, tmp_path / "copy")
    assert ingest.source_fingerprint(str(tmp_path / "copy")) == known
    assert ingest.source_fingerprint(str(photos), "folder") != known, "as a tree it has no labels"
    next((tmp_path / "copy").rglob("*.jpg")).unlink()
    assert ingest.source_fingerprint(str(tmp_path / "copy")) != known
    assert cluster.tasks == ["source_fingerprint"] * 4, "listing is no work for a driver"


@pytest.mark.parametrize("settings", [{"part_size": 0}, {"cpus_per_part": 0.0}, {"cpus_per_part": -1.0}])
def test_numbers_out_of_range_are_refused(settings: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(settings))} is"):
        IngestConfig(source="s", out="o", **settings)


def test_a_source_that_is_not_there_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = install(monkeypatch, ingest)
    with pytest.raises(ValueError, match="nothing at .*no. Name a folder of photos"):
        ingest.main(config(tmp_path / "no", tmp_path / "c"))
    assert cluster.sessions == 0
