"""Snapshots by command: taken, listed, checked, put back."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_jobs.snapshot import SnapshotConfig, main
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.published import history
from tests.unit.artifacts.test_published import make, publish


def test_a_snapshot_is_taken_listed_checked_and_put_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where, folder = str(tmp_path), Folder.of(tmp_path)
    publish(folder, **make(tmp_path, 1))
    first = history(folder)[0].version
    assert main(SnapshotConfig(workspace=where, list=True)) == "" and "no snapshots" in capsys.readouterr().out
    name = main(SnapshotConfig(workspace=where))
    assert main(SnapshotConfig(workspace=where, list=True)) == name and f"snapshots/{name}" in capsys.readouterr().out
    publish(folder, **make(tmp_path, 2))
    assert main(SnapshotConfig(workspace=where, verify=name)) == name
    assert f"{name} is whole: version {first}" in capsys.readouterr().out
    assert main(SnapshotConfig(workspace=where, restore=name)) == name and history(folder)[0].version == first
    assert "what was there before is kept as" in capsys.readouterr().out
    with pytest.raises(ValueError, match="Give one of"):
        SnapshotConfig(workspace=where, list=True, restore=name)
