"""What a benchmark's report says marks what is missing, and stands beside the published only where nothing is."""

from __future__ import annotations

import base64
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import seal
from retrieval.evaluation import revisited
from retrieval.evaluation.ground_truth import GroundTruth
from retrieval.evaluation.variants import variants
from retrieval.reports import benchmark
from retrieval.search.settings import ExpansionConfig
from tests.support.benchmark import NUM, QUERIES, stored, truth, unit, write

NONE = ExpansionConfig()


def report_metrics(read: GroundTruth, folder: Folder, **rejected: int) -> dict[str, Any]:
    results = dict(variants(read, folder, expansion=ExpansionConfig(num=2), augmentation=NONE))
    return benchmark.metrics_of(results, {"precision": "fp32"}, rejected)


def test_complete_figures_stand_beside_the_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(revisited.FULL_SIZES, "roxford5k", NUM)
    read = truth("roxford5k")
    metrics = report_metrics(read, stored(read, tmp_path / "e"))
    means, precisions = benchmark.tables(metrics)
    assert means.header == ("", "mAP easy", "mAP medium", "mAP hard")
    rows = {row[0]: row[1:] for row in means.rows}
    assert list(rows) == ["model", "model + QE", "VGG16-GeM (published)", "ResNet101-GeM (published)", "random ranking"]
    assert rows["ResNet101-GeM (published)"] == ("-", "64.7", "38.5")
    assert rows["random ranking"] == ("0.98", "1.66", "0.78")
    assert rows["model"][1] == f"{100 * metrics['systems']['model']['mAP/medium']:.2f}"
    assert precisions.header[1:4] == ("mP@1 easy", "mP@5 easy", "mP@10 easy") and len(precisions.rows) == 2
    summary = benchmark.summary(metrics)
    assert summary == (
        "roxford5k: 4 queries (scored: 4 easy, 4 medium, 4 hard) against 23 gallery images and 0 distractors."
    )
    assert summary in benchmark.as_text(metrics)


def test_partial_figures_stand_alone(tmp_path: Path) -> None:
    """All that the file names is there, but the published benchmark has more images."""
    read = truth("roxford5k")
    metrics = report_metrics(read, stored(read, tmp_path / "e", without=("query/b",)), missing=1)
    text = benchmark.as_text(metrics)
    assert "PARTIAL: 4,970 of 4,993 gallery images and 1 of 4 queries are missing (1 missing)" in text
    assert "partial mAP medium" in text and "partial mP@k" in text
    assert "published" not in text and "random" not in text
    assert metrics["average_precision"]["model"]["easy"][1] is None
    assert "compare with no others" in benchmark.summary(report_metrics(read, stored(read, tmp_path / "f")))


def test_a_benchmark_of_one_s_own_has_no_published_rows(tmp_path: Path) -> None:
    read = truth()
    means, _ = benchmark.tables(report_metrics(read, stored(read, tmp_path / "e")))
    assert [row[0] for row in means.rows] == ["model", "model + QE"] and not means.note


def made(tmp_path: Path, name: str, **given: Any) -> tuple[Folder, dict[str, Any]]:
    """A whole report of a pickled benchmark, two of whose photos were rejected."""
    read = truth()
    images = [list(map(int, rows)) for rows in (*read.easy, *read.hard, *read.junk)]
    entries = [
        {"bbx": [0, 0, 9, 9], "easy": images[q], "hard": images[q + QUERIES], "junk": images[q + 2 * QUERIES]}
        for q in range(QUERIES)
    ]
    file = tmp_path / "gnd_made-up.pkl"
    file.write_bytes(pickle.dumps({"imlist": list(read.gallery), "qimlist": list(read.queries), "gnd": entries}))
    collection = Folder.of(tmp_path / "collection")
    if not collection.exists("manifest.json"):
        seal(collection, kind="collection", config={}, inputs={}, counts={"rejected_by_reason": {"truncated": 2}})
    without = given.pop("without", ())
    embeddings = stored(read, tmp_path / f"embeddings-{len(without)}", without=without)
    out = Folder.of(tmp_path / name)
    work: dict[str, Any] = {"distractors": [], "expansion": NONE, "augmentation": NONE}
    work |= {"settings": {"precision": "fp32"}, "name": "made-up"}
    folders = {"collection": collection, "embeddings": embeddings}
    return out, benchmark.write_report(out, truth=str(file), **folders, **(work | given))


def test_a_report_is_its_metrics_and_pictures_of_them(tmp_path: Path) -> None:
    extra = write(tmp_path / "extra", {"x": unit(1, 3)[0]})
    expansion = ExpansionConfig(num=2)
    out, metrics = made(tmp_path, "r", distractors=[extra], expansion=expansion)
    pictures = [f"precision_recall-{protocol}.png" for protocol in ("easy", "medium", "hard")]
    assert sorted(out.list()) == sorted([*pictures, "metrics.json", "report.html"])
    assert out.read_json("metrics.json") == metrics
    sealed = seal(out, kind="benchmark", config={}, inputs={}, counts={}, aside=benchmark.ASIDE)
    assert set(sealed.files) == {"metrics.json"} and set(sealed.aside) == {*pictures, "report.html"}
    page = out.read_bytes("report.html").decode()
    shown = [base64.b64decode(data) for data in re.findall(r'base64,([^"]+)', page)]
    assert shown == [out.read_bytes(name) for name in pictures] and len(set(shown)) == 3
    assert "<h1>Benchmark made-up</h1>" in page and "1 distractors" in page
    for fact in ("precision", "fp32", "<td>collection", "<td>embeddings", "distractors 1", str(extra)):
        assert fact in page, fact
    embeddings = Folder.of(tmp_path / "embeddings-0")
    found = dict(variants(truth(), embeddings, [extra], expansion=expansion, augmentation=NONE))
    assert {name: result.values for name, result in found.items()} == metrics["systems"]
    assert (metrics["order"], metrics["rejected"]) == (["model", "model + QE"], {"truncated": 2})
    assert metrics["counts"] == {
        "num_gallery": NUM, "num_missing": 0, "num_missing_queries": 0, "num_distractors": 1, "num_asked": QUERIES,
    }  # fmt: skip
    assert metrics["protocols"] == ["easy", "medium", "hard"] and metrics["settings"] == {"precision": "fp32"}


def test_an_augmented_gallery_is_reported(tmp_path: Path) -> None:
    _, metrics = made(tmp_path, "r", augmentation=ExpansionConfig(num=2))
    assert metrics["order"] == ["model", "model + DBA"]
    assert metrics["systems"]["model"] != metrics["systems"]["model + DBA"]


def test_a_partial_report_says_so_in_each_table_and_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles, drawn = [], []
    real = benchmark.charts.precision_recall_png

    def spy(curves: dict[str, list[float]], title: str) -> bytes:
        titles.append(title)
        drawn.append(curves)
        return real(curves, title)

    monkeypatch.setattr(benchmark.charts, "precision_recall_png", spy)
    _, metrics = made(tmp_path, "r", without=("query/b",))
    assert titles == ["made-up easy, partial", "made-up medium, partial", "made-up hard, partial"]
    (found,) = dict(variants(truth(), Folder.of(tmp_path / "embeddings-1"), expansion=NONE, augmentation=NONE)).values()
    assert drawn == [{"model": found.curves[protocol].tolist()} for protocol in ("easy", "medium", "hard")]
    means, precisions = benchmark.tables(metrics)
    assert means.title == "partial mAP, percent" and precisions.title == "partial mP@k, percent"
    assert means.header[2] == "partial mAP medium" and precisions.header[1] == "mP@1 easy"
    assert not metrics["complete"] and metrics["average_precision"]["model"]["medium"][1] is None
    text = benchmark.summary(metrics)
    assert text.startswith("made-up: 3 queries (scored: 3 easy, 3 medium, 3 hard) against 23 gallery images")
    assert "PARTIAL: 0 of 23 gallery images and 1 of 4 queries are missing (2 truncated)." in text
    titles.clear()
    made(tmp_path, "whole")
    assert titles == ["made-up easy", "made-up medium", "made-up hard"]


def test_figures_are_in_percent_and_a_dash_is_none() -> None:
    metrics: dict[str, Any] = {
        "benchmark": "x", "complete": True, "protocols": ["easy"], "order": ["b", "a"],
        "systems": {
            "a": {"mAP/easy": None, "mP@1/easy": 0.5, "mP@5/easy": 0.25, "mP@10/easy": 1.0},
            "b": {"mAP/easy": 0.12345, "mP@1/easy": 0.0, "mP@5/easy": 0.1, "mP@10/easy": 0.2},
        },
    }  # fmt: skip
    means, precisions = benchmark.tables(metrics)
    assert means.rows == (("b", "12.35"), ("a", "-")) and not means.faint
    assert precisions.rows == (("b", "0.00", "10.00", "20.00"), ("a", "50.00", "25.00", "100.00"))


def test_the_published_and_chance_are_faint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(revisited.FULL_SIZES, "rparis6k", NUM)
    read = truth("rparis6k")
    means, _ = benchmark.tables(report_metrics(read, stored(read, tmp_path / "e")))
    assert means.faint == {"VGG16-GeM (published)", "ResNet101-GeM (published)", "random ranking"}
    assert means.note.startswith("published: several scales")


def test_average_precision_of_nought_is_kept() -> None:
    assert benchmark._without_nan([0.0, float("nan"), 0.5]) == [0.0, None, 0.5]
