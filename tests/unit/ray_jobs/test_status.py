"""What lies in a workspace, in lines and as JSON, once and again and again."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ray_jobs.runtime.survey import Survey, Version, Work
from ray_jobs.status import StatusConfig, as_json, main, size, told
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import begin
from tests.support.fake_jobs import sealed
from tests.unit.ray_jobs.test_survey import begun, pulse


@pytest.fixture
def workspace(tmp_path: Path) -> Folder:
    where = Folder.of(tmp_path / "W")
    sealed(where / "collection" / "a", "collection")
    pulse(begun(where / "model" / "b", "model"), doing="epochs", done=1200, total=9000)
    pulse(begun(where / "index" / "c", "index"), state="failed", why="ValueError: the disk is full")
    return where


def test_what_needs_somebody_comes_first(workspace: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    seen = main(StatusConfig(workspace=str(workspace)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(str(workspace)) and "1 running, 1 failed, 1 sealed" in lines[1]
    assert "running  model/b" in lines[2] and "train on node-3, process 7: epochs 1,200 of 9,000" in lines[2]
    assert "failed   index/c" in lines[3] and lines[4].strip() == "ValueError: the disk is full"
    assert "sealed   collection/a" in lines[5]
    assert seen.counts == {"running": 1, "failed": 1, "sealed": 1}


def test_json_says_all_that_is_known(workspace: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    seen = main(StatusConfig(workspace=str(workspace), json=True))
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line) == json.loads(json.dumps(as_json(seen)))
    by_name = {one["name"]: one for one in json.loads(line)["work"]}
    assert by_name["model/b"]["pulse"]["done"] == 1200 and by_name["collection/a"]["state"] == "sealed"


def test_books_and_versions_are_told() -> None:
    rejected = {"no-face": 3, "unreadable": 1200}
    work = Work(
        name="collection/a", kind="collection", state="sealed", bytes=5, taken=9203, kept=8000, rejected=rejected
    )
    versions = [
        Version(name="111122223333", at="", served=False, missing=["model", "index"]),
        Version(name="aaaabbbbcccc", at="2026-01-01", served=True, missing=[]),
    ]
    seen = Survey(
        workspace="W", at="2026-01-02T00:00:00+00:00", work=[work], versions=versions, files=1, bytes=5, other={"x": 9}
    )
    text = told(seen)
    assert "8,000 of 9,203 kept" in text and "left out: 1,200 unreadable, 3 no-face" in text
    newest, oldest = text.index("served   aaaabbbbcccc  published 2026-01-01"), text.index("version  111122223333")
    assert newest < oldest and "unknown when  cannot be gone back to: model, index not there" in text
    assert text.splitlines()[-1].split() == ["other", "x", "9", "B"]


def test_it_looks_again_until_it_is_stopped(
    workspace: Folder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            raise KeyboardInterrupt
        begin(workspace / "people" / "d", kind="people", config={}, inputs={})

    monkeypatch.setattr(time, "sleep", sleep)
    seen = main(StatusConfig(workspace=str(workspace), watch=True, every=2.5))
    assert slept == [2.5, 2.5] and seen.counts["stale"] == 1
    first, second = capsys.readouterr().out.split("\033[2J\033[H")[1:]
    assert "stale" not in first and "stale    people/d" in second


def test_a_pace_that_makes_no_sense_is_refused() -> None:
    for every in (0.0, -1.0, 1e9):
        with pytest.raises(ValueError, match="expected seconds"):
            StatusConfig(workspace="W", every=every)


@pytest.mark.parametrize(
    ("num", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_951, "1.0 MB"),
        (2_500_000_000, "2.5 GB"),
    ],
)
def test_sizes_have_a_unit_that_fits(num: int, text: str) -> None:
    assert size(num) == text
