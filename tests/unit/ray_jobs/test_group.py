"""The job that groups, whole, on a cluster that is none: planted people and planted copies, thresholds, refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ray_jobs import group
from ray_jobs.group import GroupConfig
from retrieval.artifacts.calibration import Calibration, Rate, write_calibrations
from retrieval.artifacts.folder import Folder
from retrieval.grouping import people
from retrieval.grouping.settings import GroupingConfig
from retrieval.images.pixels import resize
from tests.support import grouped
from tests.support.grouped import Photo, make_folders
from tests.support.inline import install


def config(where: dict[str, Folder], out: Path, **settings: Any) -> GroupConfig:
    given: dict[str, Any] = {"group": GroupingConfig(threshold=0.4)} | settings
    return GroupConfig(**{kind: folder.uri for kind, folder in where.items()}, out=str(out), **given)


def with_copies(photos: list[Photo], num: int) -> list[Photo]:
    """The first `num` photos once more, smaller and with other vectors, as another size has them."""
    copies = [
        dataclasses.replace(one, image_id=f"copy of {one.image_id}", pixels=resize(one.pixels[2:-3, 3:-2], 70, 70))
        for one in photos[:num]
    ]
    return [*photos, *copies]


def test_people_and_copies_are_found_drawn_scored_and_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = install(monkeypatch, group)
    photos = with_copies(grouped.people(6, 4), 5)
    where, out = make_folders(tmp_path, photos), Folder.of(tmp_path / "out")
    made = group.main(config(where, tmp_path / "out"))
    assert [call["name"] for call in cluster.parts] == ["link", "thumbnails", "compare"]
    assert (made.counts["people"], made.counts["grouped"], made.counts["same_picture"]) == (6, 29, 5)
    assert (made.counts["bcubed_precision"], made.counts["bcubed_recall"], made.counts["pair_f"]) == (1.0, 1.0, 1.0)
    num_links = sum(out.num_rows(name) for name in out.list() if name.startswith("links/"))
    held = cluster.needs["write_people"].memory - group.holding(0).memory
    assert num_links > made.counts["links"] > 0
    assert held == 29 * (4 * 32 + group._MERGED) + num_links * group._LINK, "the vectors, and links as parts count them"
    twice = out.read_table(people.DUPLICATES).to_pylist()
    pairs = [tuple(sorted((row["image_id"], row["duplicate_of"]))) for row in twice]
    assert sorted(pairs) == sorted((f"copy of {one.image_id}", one.image_id) for one in photos[:5])
    assert set(made.aside) == {"people.html", "largest.jpg", "least-sure.jpg", "duplicates.jpg"}
    assert not any(name.startswith("compared/") for name in out.list())
    assert made.config == {"group": made.config["group"], "threshold": 0.4, "threshold_from": "as set"}
    assert group.main(config(where, tmp_path / "out")) == made, "sealed: nothing is done"
    assert len(cluster.parts) == 3


def test_without_labels_nothing_is_scored_and_copies_may_be_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = install(monkeypatch, group)
    photos = [dataclasses.replace(one, label=None) for one in with_copies(grouped.people(3, 3), 2)]
    how = GroupingConfig(threshold=0.4, duplicates=False)
    made = group.main(config(make_folders(tmp_path, photos), tmp_path / "out", group=how))
    assert "bcubed_precision" not in made.counts and made.counts["same_picture"] == 0
    assert [call["name"] for call in cluster.parts] == ["link"]


def test_an_interrupted_job_goes_on_to_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, group)
    where = make_folders(tmp_path, with_copies(grouped.people(3, 3), 2))
    whole = group.main(config(where, tmp_path / "whole"))
    with monkeypatch.context() as broken:
        broken.setattr(people, "seal_people", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            group.main(config(where, tmp_path / "out"))
    assert group.main(config(where, tmp_path / "out")).fingerprint == whole.fingerprint


def test_the_threshold_is_that_of_the_calibration_of_this_model(tmp_path: Path) -> None:
    where, report = make_folders(tmp_path, grouped.people(2, 3)), Folder.of(tmp_path / "report")
    rates = (Rate(far=1e-4, threshold=0.51),)
    write_calibrations(report, {"after": Calibration(model="m" * 64, rates=rates)})
    auto = config(where, tmp_path / "out", group=GroupingConfig(), calibration=report.uri)
    assert group.threshold_of(auto).value == 0.51
    assert group.threshold_of(dataclasses.replace(auto, calibration="")).source.startswith("nobody")
    write_calibrations(report, {"other": Calibration(model="n" * 64, rates=rates)})
    with pytest.raises(ValueError, match="calibrated no scores of the model"):
        group.threshold_of(auto)


def test_groups_that_go_on_keep_the_threshold_they_were_made_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, group)
    where, report = make_folders(tmp_path, grouped.people(2, 3)), Folder.of(tmp_path / "report")
    group.main(config(where, tmp_path / "earlier", group=GroupingConfig(threshold=0.4)))
    write_calibrations(report, {"after": Calibration(model="m" * 64, rates=(Rate(far=1e-4, threshold=0.51),))})
    given = {"calibration": report.uri, "previous": str(tmp_path / "earlier")}
    found = group.threshold_of(config(where, tmp_path / "out", group=GroupingConfig(), **given))
    assert (found.value, found.source) == (0.4, "that of the earlier groups")
    anew = group.threshold_of(config(where, tmp_path / "out", group=GroupingConfig(keep=False), **given))
    assert anew.value == 0.51
    other = make_folders(tmp_path / "other", grouped.people(2, 3), model="n")
    write_calibrations(report, {"after": Calibration(model="n" * 64, rates=(Rate(far=1e-4, threshold=0.51),))})
    assert group.threshold_of(config(other, tmp_path / "out", group=GroupingConfig(), **given)).value == 0.51


def test_a_pipeline_logs_counts_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, group)
    logged: dict[str, Any] = {}

    class Tracker:
        def log_metrics(self, values: Any, prefix: str) -> None:
            logged[prefix] = values

        def log_files(self, folder: Folder, names: list[str], to: str) -> None:
            logged[to] = names

    made = group.main(config(make_folders(tmp_path, grouped.people(2, 3)), tmp_path / "out"), Tracker())  # type: ignore[arg-type]
    assert logged == {"group": made.counts, "people": list(made.aside)}
