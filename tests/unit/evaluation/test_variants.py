"""A benchmark scored from files equals the same scored from memory; what it says marks what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.embeddings import EMBEDDING_SCHEMA
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import seal
from retrieval.evaluation import revisited
from retrieval.evaluation.ground_truth import GroundTruth
from retrieval.evaluation.revisited import in_blocks
from retrieval.evaluation.variants import gallery_names, read_queries, variants
from retrieval.reports import benchmark
from retrieval.search.settings import ExpansionConfig

NUM, QUERIES, DIM, EXTRA = 23, 4, 6, 9
NONE = ExpansionConfig()


def truth(name: str = "made-up") -> GroundTruth:
    rng = np.random.default_rng(0)
    drawn = [np.split(rng.permutation(NUM)[:9], [3, 6]) for _ in range(QUERIES)]
    easy, hard, junk = (tuple(np.sort(lists[kind]) for lists in drawn) for kind in range(3))
    images = tuple(f"g{row:02d}" for row in rng.permutation(NUM))
    boxes = np.tile([0.0, 0, 9, 9], (QUERIES, 1))
    return GroundTruth(
        name=name, gallery=images, queries=("a", "b", "a", "c"), boxes=boxes, easy=easy, hard=hard, junk=junk
    )


def unit(num: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(num, DIM)) + 0.3
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def write(where: Path, named: dict[str, np.ndarray], part: int = 5) -> Folder:
    """Sealed embeddings in parts, in order of name, and an empty part."""
    folder, ids = Folder.of(where), sorted(named)
    for number, start in enumerate([*range(0, len(ids), part), len(ids)]):
        some = ids[start : start + part]
        table = {"image_id": some, "embedding": [named[image_id].tolist() for image_id in some]}
        folder.write_table(part_name(number), pa.table(table, schema=EMBEDDING_SCHEMA))
    seal(folder, kind="embeddings", config={}, inputs={}, counts={"dim": DIM})
    return folder


def stored(read: GroundTruth, where: Path, without: tuple[str, ...] = ()) -> Folder:
    named = dict(zip(read.gallery, unit(NUM, 1), strict=True)) | dict(zip(read.query_ids(), unit(QUERIES, 2)))
    return write(where, {name: vector for name, vector in named.items() if name not in without})


def slow_expanded(queries: np.ndarray, vectors: np.ndarray, num: int, own: bool = False) -> np.ndarray:
    out = []
    for number, query in enumerate(queries.astype(np.float64)):
        order = [row for row in np.argsort(-(vectors @ query)) if not (own and row == number)]
        total = query + sum(max(query @ vectors[row], 0) ** 3 * vectors[row] for row in order[:num])
        out.append(total / np.linalg.norm(total))
    return np.array(out, np.float32)


def test_distractors_are_streamed_and_expand_queries(tmp_path: Path) -> None:
    read, extra = truth(), unit(EXTRA, 3)
    folder = stored(read, tmp_path / "e")
    others = [
        write(tmp_path / f"d{number}", {f"x{row}": extra[row] for row in rows})
        for number, rows in enumerate((range(4), range(4, EXTRA)))
    ]
    config = ExpansionConfig(num=3)
    found = dict(variants(read, folder, others, expansion=config, augmentation=NONE))
    gallery, queries = unit(NUM, 1), unit(QUERIES, 2)
    expanded = slow_expanded(queries, np.concatenate([gallery, extra]), 3)
    for name, asked in (("model", queries), ("model + QE", expanded)):
        wanted = revisited.score(read, asked, in_blocks(gallery), lambda: iter([extra]))
        assert found[name].values == pytest.approx(wanted.values, abs=1e-9)
        assert (found[name].complete, found[name].num_distractors) == (True, EXTRA)
    assert list(found) == ["model", "model + QE"]


def test_the_gallery_is_augmented_by_its_own_images_only(tmp_path: Path) -> None:
    read = truth()
    config = ExpansionConfig(num=4)
    found = dict(variants(read, stored(read, tmp_path / "e"), expansion=config, augmentation=config))
    gallery, queries = slow_expanded(unit(NUM, 1), unit(NUM, 1), 4, own=True), unit(QUERIES, 2)
    for name, asked in (("model + DBA", queries), ("model + DBA + QE", slow_expanded(queries, gallery, 4))):
        assert found[name].values == pytest.approx(revisited.score(read, asked, in_blocks(gallery)).values, abs=1e-9)
    assert list(found) == ["model", "model + QE", "model + DBA", "model + DBA + QE"]
    with pytest.raises(ValueError, match="only the gallery would be augmented"):
        next(variants(read, Folder("e"), [Folder("d")], expansion=NONE, augmentation=config))


def test_missing_queries_are_told_from_zeros(tmp_path: Path) -> None:
    read = truth()
    folder = stored(read, tmp_path / "e", without=("query/a#2", read.gallery[0]))
    queries, known = read_queries(folder, read)
    assert known.tolist() == [True, True, False, True]
    assert np.array_equal(queries[[0, 1, 3]], unit(QUERIES, 2)[[0, 1, 3]]) and not queries[2].any()
    assert list(gallery_names(folder)) == sorted(read.gallery[1:])


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
