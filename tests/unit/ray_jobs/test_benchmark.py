"""A benchmark's run: what it is asked, what names its report, and which distractors it takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ray_jobs import benchmark
from ray_jobs.benchmark import BenchmarkConfig
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest, seal
from retrieval.images.settings import PrepareConfig
from retrieval.models.settings import ModelConfig
from retrieval.models.spec import ModelSpec
from retrieval.search.settings import ExpansionConfig
from tests.support.fake_jobs import sealed
from tests.support.inline import Cluster, install

GIVEN: dict[str, Any] = {"model": "m", "photos": "p", "truth": "gnd_roxford5k.pkl", "out": "o"}
PREPARE = PrepareConfig(crop="fit", size=64, quality=92)


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"truth": "lists"}, "Name it with --name"),
        ({"name": "a b"}, "is called 'a b'"),
        ({"augmentation": ExpansionConfig(num=1), "distractors": ("d",)}, "Leave out one of the two"),
        ({"num_workers": -1}, "num_workers is -1"),
    ],
)
def test_settings_that_say_nothing_are_refused(settings: Any, refused: str) -> None:
    with pytest.raises(ValueError, match=refused):
        BenchmarkConfig(**{**GIVEN, **settings})


def test_settings_that_go_together_are_taken() -> None:
    BenchmarkConfig(**GIVEN, augmentation=ExpansionConfig(num=1), expansion=ExpansionConfig(num=1))
    BenchmarkConfig(**GIVEN, expansion=ExpansionConfig(num=1), distractors=("d",))
    BenchmarkConfig(**{**GIVEN, "truth": "lists", "name": "oxford5k"})


@pytest.mark.parametrize("missing", ["model", "photos", "truth", "distractors"])
def test_what_is_not_there_is_refused_at_once(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = install(monkeypatch, benchmark)
    there = {"model": sealed(tmp_path / "m", "model").uri, "photos": str(tmp_path), "truth": f"{tmp_path}/gnd_x.pkl"}
    (tmp_path / "gnd_x.pkl").write_bytes(b"")
    no = f"{tmp_path}/no.pkl"
    cfg = BenchmarkConfig(**{**GIVEN, **there, missing: (no,) if missing == "distractors" else no})
    with pytest.raises(ValueError, match=f"No sealed model at {no}" if missing == "model" else f"nothing at {no}.*--"):
        benchmark.main(cfg)
    assert cluster.sessions == 0


def test_how_the_figures_were_made_is_said_in_full() -> None:
    config = ModelConfig(backbone="resnet18", pooling="gem", head="none", image_size=64, keep_aspect=True, flip=True)
    spec = ModelSpec(config=dataclasses.replace(config, scales=(1.0, 0.5)))
    said = benchmark.settings_of(spec, PREPARE, ExpansionConfig(num=3), ExpansionConfig(num=4, alpha=2.0))
    assert said["resize"].startswith("long side 64 pixels") and said["jpeg_quality"] == 92
    assert (said["backbone"], said["pooling"], said["head"], said["flip"]) == ("resnet18", "gem", "none", True)
    assert said["scales"] == [1.0, 0.5]
    assert (said["whitening"], said["whitening_dim"]) == ("none", 0)
    assert (said["expansion"], said["augmentation"]) == ({"num": 3, "alpha": 3.0}, {"num": 4, "alpha": 2.0})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> tuple[Cluster, list[Any]]:
    """The steps that others do, written down."""
    cluster, calls = install(monkeypatch, benchmark), []

    def collection(out: Folder, source: str, **how: Any) -> Any:
        calls.append(("collect", out, source, how))
        return seal(out, kind="collection", config={}, inputs={}, counts={"rejected_by_reason": {"missing": 2}})

    def embeddings(collection: Folder, bundle: Folder, out: Folder, **how: Any) -> None:
        calls.append(("embed", collection, bundle, out, how))

    monkeypatch.setattr(benchmark, "make_collection", collection)
    monkeypatch.setattr(benchmark, "make_embeddings", embeddings)
    return cluster, calls


def test_distractors_are_a_sealed_collection_or_photos_that_are_ingested_first(
    made: tuple[Cluster, list[Any]], tmp_path: Path
) -> None:
    _, calls = made
    cfg = BenchmarkConfig(**GIVEN, num_workers=3, device="cpu", precision="fp32")
    out, bundle, photos = Folder.of(tmp_path / "out"), Folder("/bundle"), Folder.of(tmp_path / "photos")
    prepared = {"crop": "fit", "size": 64, "quality": 92}
    there = Folder.of(tmp_path / "there")
    seal(there, kind="collection", config={"prepare": prepared}, inputs={}, counts={})
    first = benchmark.embed_distractors(cfg, out, there, bundle, PREPARE)
    second = benchmark.embed_distractors(cfg, out, photos, bundle, PREPARE)
    assert first != second and first.uri.startswith(f"{out}/distractors/")
    how = {"workers": 3, "device": "cpu", "engine": "auto", "precision": "fp32"}
    embedded, collected, again = calls
    assert embedded == ("embed", there, bundle, first, how)
    assert collected[2] == photos.uri and collected[3]["prepare"] == PREPARE and collected[3]["layout"] == "auto"
    assert again == ("embed", collected[1], bundle, second, how)
    other = Folder.of(tmp_path / "other")
    seal(other, kind="collection", config={"prepare": {**prepared, "size": 32}}, inputs={}, counts={})
    with pytest.raises(ValueError, match="prepared otherwise"):
        benchmark.embed_distractors(cfg, out, other, bundle, PREPARE)


def test_what_is_collected_keeps_the_source_splits_and_says_what_is_missing(
    made: tuple[Cluster, list[Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    benchmark.collect(Folder.of(tmp_path / "c"), "photos", "manifest", PREPARE)
    ((_, _, source, how),) = made[1]
    assert source == "photos" and how["layout"] == "manifest" and how["split"].honour_source
    assert how["settings"]["prepare"]["size"] == 64 and how["settings"]["split"]["honour_source"] is True
    assert "photos that are not taken: 2 missing" in caplog.text


def test_each_way_of_scoring_has_a_report_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval.reports import benchmark as reports

    cluster, wrote = install(monkeypatch, benchmark), []

    def write(report: Folder, **how: Any) -> dict[str, Any]:
        wrote.append(how)
        return {"counts": {"queries": 7}, "systems": {"model": {"mAP/medium": 0.5}, "model + QE": {"mAP/medium": 0.75}}}

    monkeypatch.setattr(reports, "write_report", write)
    seal(Folder.of(tmp_path / "embeddings"), kind="embeddings", config={}, inputs={}, counts={"num": 1000, "dim": 128})
    out, cfg = Folder.of(tmp_path), BenchmarkConfig(**GIVEN, expansion=ExpansionConfig(num=2))

    def report(settings: Any, inputs: Any) -> Folder:
        return benchmark.report_of(cfg, out, settings, inputs, truth="t", name="n", distractors=[])

    first = report({"qe": 2}, {"model": "a"})
    assert read_manifest(first, "benchmark").counts == {
        "queries": 7,
        "model/mAP/medium": 0.5,
        "model + QE/mAP/medium": 0.75,
    }
    assert (wrote[0]["expansion"], wrote[0]["augmentation"]) == (cfg.expansion, cfg.augmentation)
    assert (wrote[0]["collection"], wrote[0]["embeddings"]) == (out / "collection", out / "embeddings")
    assert report({"qe": 2}, {"model": "a"}) == first and len(wrote) == 1 and len(cluster.tasks) == 1
    assert len({first, report({"qe": 3}, {"model": "a"}), report({"qe": 2}, {"model": "b"})}) == 3
