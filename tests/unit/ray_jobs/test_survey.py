"""Every file of a workspace is found once, and every step's folder in the state that it is in."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.runtime.news.pulse import Pulse, place_of
from ray_jobs.runtime.survey import Survey, Work, survey
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Books, begin, read_manifest, seal
from retrieval.artifacts.published import publish
from tests.support.fake_jobs import sealed


def pulse(folder: Folder, seconds_ago: float = 0.0, **changes: Any) -> None:
    at = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat(timespec="seconds")
    said = Pulse(job="train", node="node-3", process=7, began=at, heard=at, **changes)
    where, name = place_of(folder)
    where.write_json(name, dataclasses.asdict(said))


def begun(folder: Folder, kind: str) -> Folder:
    begin(folder, kind=kind, config={}, inputs={})
    folder.write_bytes("part-00000.parquet", b"12345")
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Folder:
    return Folder.of(tmp_path / "W")


def of(workspace: Folder) -> dict[str, Work]:
    return {one.name: one for one in survey(workspace).work}


def test_each_state_is_told_apart(workspace: Folder) -> None:
    sealed(workspace / "model" / "a", "model")
    for name in ("runs", "gone", "failed", "stopped", "nobody"):
        begun(workspace / "model" / name, "model")
    pulse(workspace / "model" / "runs", 20, doing="epochs", done=2, total=9)
    pulse(workspace / "model" / "gone", 3600)
    pulse(workspace / "model" / "failed", 3600, state="failed", why="ValueError: full")
    pulse(workspace / "model" / "stopped", 3600, state="stopped", why="it was interrupted")
    pulse(workspace / "model" / "starts")  # and has not begun its folder yet
    (workspace / "model" / "hurt").write_bytes("manifest.json", b"{")
    found = of(workspace)
    assert {name.removeprefix("model/"): one.state for name, one in found.items()} == {
        "a": "sealed",
        "runs": "running",
        "gone": "stale",
        "failed": "failed",
        "stopped": "stopped",
        "nobody": "stale",
        "starts": "running",
        "hurt": "damaged",
    }
    assert found["model/failed"].why == "ValueError: full"
    assert "train on node-3 was last heard of 36" in found["model/gone"].why
    assert "nobody says" in found["model/nobody"].why and "manifest.json cannot be read" in found["model/hurt"].why
    assert (runs := found["model/runs"].pulse) is not None and (runs.done, runs.total) == (2, 9)
    assert found["model/nobody"].kind == "model" and found["model/starts"].kind == ""


def test_books_say_what_was_left_out_and_why(workspace: Folder) -> None:
    folder, work = workspace / "collection" / "a", {"kind": "collection", "config": {}, "inputs": {}}
    begin(folder, **work)  # type: ignore[arg-type]
    books = [
        Books(stage="decode", taken=10, kept=7, rejected={"unreadable": 2, "empty": 1}),
        Books(stage="face", taken=7, kept=5, rejected={"no-face": 1, "unreadable": 1}),
    ]
    seal(folder, **work, counts={}, books=books)  # type: ignore[arg-type]
    [one] = survey(workspace).work
    assert (one.taken, one.kept) == (10, 5)
    assert one.rejected == {"unreadable": 3, "empty": 1, "no-face": 1}
    assert one.sealed_at == read_manifest(folder).created


def test_every_byte_is_counted_once(workspace: Folder) -> None:
    sealed(workspace / "collection" / "a", "collection", "12345")
    begun(workspace / "model" / "b", "model")
    pulse(workspace / "model" / "b")
    (workspace / "model" / "b-checkpoints").write_bytes("state.pt", b"x" * 1000)
    workspace.write_bytes("photos/1.jpg", b"y" * 70)
    workspace.write_bytes("photos/deep/2.jpg", b"y" * 7)
    seen = survey(workspace)
    sizes = workspace.list()
    assert seen.files == len(sizes) == sum(one.files for one in seen.work) + 4
    assert seen.bytes == sum(sizes.values()) == sum(one.bytes for one in seen.work) + sum(seen.other.values())
    assert seen.other["photos"] == 77
    assert seen.other["model"] == 1000 + sizes["model/.pulse/b.json"]
    assert {one.name for one in seen.work} == {"collection/a", "model/b"}


def test_a_folder_within_a_step_s_folder_is_its_own(workspace: Folder) -> None:
    sealed(workspace / "index", "index", "123")
    sealed(workspace / "index" / "inner", "index", "1234567")
    found = of(workspace)
    assert found["index/inner"].files == found["index"].files == 2


def published(workspace: Folder) -> Survey:
    for number in range(2):
        folders = {
            "collection": workspace / "collection" / "c",
            "model": workspace / "model" / "m",
            "index": workspace / "index" / f"i{number}",
        }
        for kind in ("collection", "model"):
            sealed(folders[kind], kind)
        inputs = {kind: read_manifest(folders[kind]).fingerprint for kind in ("collection", "model")}
        work: dict[str, Any] = {"kind": "index", "config": {"number": number}, "inputs": inputs}
        begin(folders["index"], **work)
        seal(folders["index"], **work, counts={})
        publish(workspace, **folders)
    return survey(workspace)


def test_versions_are_told_with_what_they_lack(workspace: Folder) -> None:
    seen = published(workspace)
    assert [(one.served, one.missing) for one in seen.versions] == [(False, []), (True, [])]
    served = {one.name for one in seen.work if one.served}
    assert served == {"collection/c", "model/m", "index/i1"}
    (workspace / "index" / "i0").remove("manifest.json")
    assert [one.missing for one in survey(workspace).versions] == [["index"], []]


def test_a_version_made_of_folders_elsewhere_is_not_said_to_lack_them(workspace: Folder, tmp_path: Path) -> None:
    published(workspace)
    told = workspace.read_json("CURRENT.json")
    for one in (told, *told["history"]):
        one["paths"]["model"] = str(tmp_path / "elsewhere")
    workspace.write_json("CURRENT.json", told)
    assert [one.missing for one in survey(workspace).versions] == [[], []]


def test_nothing_is_told_to_be_nothing(workspace: Folder) -> None:
    with pytest.raises(ValueError, match="There is nothing at"):
        survey(workspace)
