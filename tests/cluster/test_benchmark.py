"""A benchmark on a real local Ray: drawn places, a ground truth made by hand, figures worked out the obvious way."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ray_jobs import benchmark
from ray_jobs.benchmark import BenchmarkConfig
from retrieval.artifacts import hashing
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.data.demo.places import write_scenes
from retrieval.data.demo.settings import SceneConfig
from retrieval.images.pixels import encode_jpeg
from retrieval.images.settings import PrepareConfig
from retrieval.models.bundle import build, save_bundle
from retrieval.models.embedder import Embedder
from retrieval.models.settings import ModelConfig
from tests.support.oracles import slow_map

PREPARE = PrepareConfig(crop="fit", size=256, quality=95)
SIZE = 96  # the network's: smaller than the bundle's stored photos
LISTS = [  # of each query: its photo, easy, hard, junk
    ("p_0_0", ["p_0_1", "p_0_2"], ["p_0_3"], ["p_1_1"]),
    ("p_1_0", ["p_1_1"], ["p_1_2", "p_1_3"], []),
    ("p_2_0", [], ["p_2_1", "p_2_2"], ["p_2_3"]),
    ("p_2_0", ["p_2_3"], ["p_2_1"], ["p_0_1"]),  # the same photo asks again, with another box
]
BOXES = [[10.5, 20, 200, 180.2], [0, 0, 240, 200], [30, 40, 150, 160], [100, 50, 230, 239]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    config = ModelConfig(cut="features.3", pooling="gem", head="none", image_size=SIZE, keep_aspect=True)
    folder = str(tmp_path_factory.mktemp("bundle") / "model")
    save_bundle(build(config, preparation=hashing.plain(PREPARE)), folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three places seen four times as p_PLACE_NUMBER.jpg in two folders; four others in `others`."""
    root = tmp_path_factory.mktemp("photos")
    write_scenes(root / "drawn", SceneConfig(num_places=3, images_per_place=4, num_distractors=4, size=360, seed=5))
    for folder in ("jpg/a", "jpg/b", "others"):
        (root / folder).mkdir(parents=True)
    for place in range(3):
        for number in range(4):
            drawn = root / f"drawn/place_{place:03d}/{number:03d}.jpg"
            drawn.rename(root / "jpg" / "ab"[number % 2] / f"p_{place}_{number}.jpg")
    for drawn in sorted((root / "drawn/distractors").iterdir()):
        drawn.rename(root / "others" / drawn.name)
    return root


def gallery() -> list[str]:
    return [f"p_{place}_{number}" for place in (2, 0, 1) for number in (3, 1, 2)]  # in no order of name


def write_truth(file: Path, images: list[str]) -> str:
    rows = {image: row for row, image in enumerate(images)}
    entries = [
        {
            "bbx": box,
            "easy": [rows[image] for image in easy],
            "hard": [rows[image] for image in hard],
            "junk": [rows[image] for image in junk],
        }
        for (_, easy, hard, junk), box in zip(LISTS, BOXES, strict=True)
    ]
    file.write_bytes(pickle.dumps({"imlist": images, "qimlist": [query for query, *_ in LISTS], "gnd": entries}))
    return str(file)


@pytest.fixture(scope="module")
def complete(bundle: str, photos: Path, ray_local: None) -> tuple[BenchmarkConfig, Folder]:
    cfg = BenchmarkConfig(
        model=bundle,
        photos=str(photos / "jpg"),
        truth=write_truth(photos / "gnd_drawn.pkl", gallery()),
        out=str(photos / "complete"),
        distractors=(str(photos / "others"),),
        precision="fp32",
        num_workers=1,
    )
    return cfg, benchmark.main(replace(cfg, expansion=replace(cfg.expansion, num=3)))


def slow_embeddings(bundle: str, photos: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, gallery and distractors, cut and shrunk by Pillow, one by one."""
    embedder = Embedder(bundle, precision="fp32")

    def embed(file: Path, box: list[float] | None = None) -> np.ndarray:
        whole = Image.open(file)
        part = whole.crop(tuple(round(edge) for edge in box)) if box else whole  # type: ignore[arg-type]
        factor = min(1.0, SIZE / max(whole.size))
        small = part.resize((round(part.width * factor), round(part.height * factor)), Image.Resampling.BOX)
        return embedder.embed_jpegs([encode_jpeg(np.asarray(small), 95)])[0]

    places = {file.stem: file for file in (photos / "jpg").rglob("*.jpg")}
    queries = [embed(places[query], box) for (query, *_), box in zip(LISTS, BOXES, strict=True)]
    others = [embed(file) for file in sorted((photos / "others").iterdir())]
    return np.stack(queries), np.stack([embed(places[image]) for image in gallery()]), np.stack(others)


def stored(folder: Folder) -> dict[str, np.ndarray]:
    names = sorted(read_manifest(folder).files)
    rows = [row for name in names for row in folder.read_table(name).to_pylist()]
    return {row["image_id"]: np.array(row["embedding"], np.float32) for row in rows}


def whole_map(queries: np.ndarray, images: np.ndarray, protocol: str) -> float:
    """mAP by the whole ranking, gallery first."""
    row = {image: row for row, image in enumerate(gallery())}
    rankings, positives, junks = [], [], []
    for query, (_, easy, hard, junk) in zip(queries, LISTS, strict=True):
        rankings.append(np.argsort(-(images @ query), kind="stable"))
        good = {"easy": easy, "medium": easy + hard, "hard": hard}[protocol]
        bad = {"easy": junk + hard, "medium": junk, "hard": junk + easy}[protocol]
        positives.append([row[image] for image in good])
        junks.append([row[image] for image in bad])
    return slow_map(rankings, positives, junks)


def test_figures_are_those_of_the_whole_ranking(
    complete: tuple[BenchmarkConfig, Folder], bundle: str, photos: Path
) -> None:
    cfg, report = complete
    found = stored(Folder.of(cfg.out) / "embeddings")
    queries = np.stack([found[name] for name in ("query/p_0_0", "query/p_1_0", "query/p_2_0", "query/p_2_0#2")])
    images = np.stack([found[name] for name in gallery()])
    (others,) = [stored(Folder.of(str(folder))) for folder in (Path(cfg.out) / "distractors").glob("*/embeddings")]
    extra = np.stack([others[name] for name in sorted(others)])
    metrics = report.read_json("metrics.json")
    everything = np.concatenate([images, extra])
    for protocol in ("easy", "medium", "hard"):
        wanted = whole_map(queries, everything, protocol)
        assert metrics["systems"]["model"][f"mAP/{protocol}"] == pytest.approx(wanted, abs=1e-9)
    scores = queries @ everything.T
    near = np.argsort(-scores, axis=1)[:, :3]
    weights = np.maximum(np.take_along_axis(scores, near, axis=1), 0) ** 3
    expanded = queries + (weights[:, :, None] * everything[near]).sum(axis=1)
    wanted = whole_map(expanded, everything, "medium")
    assert metrics["systems"]["model + QE"]["mAP/medium"] == pytest.approx(wanted, abs=1e-9)
    assert metrics["complete"] and metrics["num_queries"] == {"easy": 3, "medium": 4, "hard": 4}
    assert metrics["counts"]["num_gallery"] == 9 and metrics["counts"]["num_distractors"] == 4
    slow = slow_embeddings(bundle, photos)
    for ours, theirs in zip((queries, images, extra), slow, strict=True):
        assert (ours * theirs).sum(axis=1).min() > 0.999


def test_the_report_is_whole_and_sealed(complete: tuple[BenchmarkConfig, Folder]) -> None:
    _, report = complete
    manifest = read_manifest(report, "benchmark")
    pictures = {f"precision_recall-{protocol}.png" for protocol in ("easy", "medium", "hard")}
    assert set(manifest.files) == {"metrics.json"} and set(manifest.aside) == pictures | {"report.html"}
    page = (Path(report.path) / "report.html").read_text()
    assert "mAP medium" in page and "partial" not in page.lower() and page.count("data:image/png") == 3
    settings = report.read_json("metrics.json")["settings"]
    assert settings["resize"].startswith("long side 96 pixels") and settings["expansion"] == {"alpha": 3.0, "num": 3}


def test_it_is_tracked(complete: tuple[BenchmarkConfig, Folder]) -> None:
    from mlflow import MlflowClient

    cfg, report = complete
    client = MlflowClient(tracking_uri=f"sqlite:///{Folder.of(cfg.out).path}/mlflow.db")
    experiment = client.get_experiment_by_name("benchmarks")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["benchmark.expansion.num"] == "3"
    wanted = report.read_json("metrics.json")["systems"]["model + QE"]["mP@10/hard"]
    assert run.data.metrics["drawn/model_QE/mP_at_10/hard"] == wanted


def test_a_missing_and_a_broken_photo_make_it_partial(
    complete: tuple[BenchmarkConfig, Folder], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gallery names an image that is nowhere; a query's photo is cut short; the gallery is augmented."""
    jpg = tmp_path / "jpg"
    jpg.mkdir()
    for file in (photos / "jpg").rglob("*.jpg"):
        (jpg / file.name).write_bytes(file.read_bytes()[: 3000 if file.stem == "p_1_0" else None])
    (jpg / "p_0_3.jpg").unlink()
    cfg, _ = complete
    cfg = replace(cfg, photos=str(jpg), out=str(tmp_path / "out"), distractors=())
    cfg = replace(cfg, augmentation=replace(cfg.augmentation, num=2))
    report = benchmark.main(cfg)
    metrics = report.read_json("metrics.json")
    assert not metrics["complete"] and metrics["rejected"] == {"missing": 1, "truncated": 1}
    assert metrics["order"] == ["model", "model + DBA"]
    assert all(key.startswith("partial ") for own in metrics["systems"].values() for key in own)
    assert metrics["average_precision"]["model"]["medium"][1] is None
    assert (metrics["counts"]["num_missing"], metrics["counts"]["num_missing_queries"]) == (1, 1)
    printed = capsys.readouterr().out
    assert "PARTIAL: 1 of 9 gallery images and 1 of 4 queries are missing (1 missing, 1 truncated)" in printed
    assert "partial mAP medium" in printed and "published" not in printed
    assert "PARTIAL" in (Path(report.path) / "report.html").read_text()
    sealed = (Path(report.path) / "report.html").stat().st_mtime_ns
    assert benchmark.main(cfg) == report
    assert (Path(report.path) / "report.html").stat().st_mtime_ns == sealed


class Runs:
    """Pickles as a command."""

    def __reduce__(self) -> Any:
        return os.system, ("touch SENTINEL",)


def test_a_pickle_that_wants_to_run_is_refused(
    complete: tuple[BenchmarkConfig, Folder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gnd_bad.pkl").write_bytes(pickle.dumps({"imlist": [Runs()], "qimlist": [], "gnd": []}))
    cfg, _ = complete
    with pytest.raises(ValueError, match=r"wants to use posix\.system.*Do not trust this file"):
        benchmark.main(replace(cfg, truth=str(tmp_path / "gnd_bad.pkl"), out=str(tmp_path / "out")))
    assert not list(tmp_path.rglob("SENTINEL"))


def test_distractors_prepared_otherwise_are_refused(complete: tuple[BenchmarkConfig, Folder], tmp_path: Path) -> None:
    cfg, _ = complete
    (collection,) = (Path(cfg.out) / "distractors").glob("*/collection")
    other = tmp_path / "collection"
    other.mkdir()
    seal = json.loads((collection / "manifest.json").read_text())
    seal["config"]["prepare"]["size"] = 1024
    (other / "manifest.json").write_text(json.dumps(seal))
    with pytest.raises(ValueError, match=r"prepared otherwise.*size 1024, not 96"):
        benchmark.main(replace(cfg, distractors=(str(other),)))


def test_distractors_and_augmentation_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="Leave out one of the two"):
        given = BenchmarkConfig(model="m", photos="p", truth="gnd_a.pkl", out="o", distractors=("d",))
        replace(given, augmentation=replace(given.augmentation, num=3))
