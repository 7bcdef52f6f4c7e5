"""A bundle's history: figures in the file that is sealed, seconds in the manifest, together again when read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.history import HISTORY, read_history, write_history
from retrieval.artifacts.manifest import Manifest, seal

EPOCHS: list[dict[str, Any]] = [
    {"epoch": 0, "val/mAP": 0.25, "tuples_sha256": "ab"},
    {"epoch": 1, "train/loss": 0.5, "seconds/mine": 2.0, "seconds/train": 7.5},
    {"epoch": 2, "train/loss": 0.25, "seconds/mine": 1.0},
]


def sealed(folder: Folder, run: dict[str, Any] | None = None) -> Manifest:
    return seal(folder, kind="model", config={}, inputs={}, counts={}, run=run)


def test_figures_are_content_and_seconds_are_not(tmp_path: Path) -> None:
    first, again = Folder.of(tmp_path / "first"), Folder.of(tmp_path / "again")
    slower = [row | ({"seconds/mine": 99.0} if "seconds/mine" in row else {}) for row in EPOCHS]
    manifests = [sealed(folder, write_history(folder, rows)) for folder, rows in ((first, EPOCHS), (again, slower))]
    assert manifests[0].fingerprint == manifests[1].fingerprint
    assert first.read_json(HISTORY) == [
        {"epoch": 0, "val/mAP": 0.25, "tuples_sha256": "ab"},
        {"epoch": 1, "train/loss": 0.5},
        {"epoch": 2, "train/loss": 0.25},
    ]
    assert manifests[0].run == {"epochs": [{}, {"seconds/mine": 2.0, "seconds/train": 7.5}, {"seconds/mine": 1.0}]}
    assert read_history(first) == EPOCHS and read_history(again) == slower


def test_a_history_of_an_earlier_version_holds_its_seconds_itself(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    folder.write_json(HISTORY, EPOCHS)
    sealed(folder)
    assert read_history(folder) == EPOCHS


def test_a_bundle_that_was_not_trained_has_none(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    with pytest.raises(ValueError, match="No sealed model"):
        read_history(folder)
    folder.write_bytes("model.json", b"{}")
    sealed(folder)
    assert read_history(folder) == []
