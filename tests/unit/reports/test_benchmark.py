"""What a benchmark's report says marks what is missing, and stands beside the published only where nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.evaluation import revisited
from retrieval.evaluation.ground_truth import GroundTruth
from retrieval.evaluation.variants import variants
from retrieval.reports import benchmark
from retrieval.search.settings import ExpansionConfig
from tests.support.benchmark import NUM, stored, truth

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
