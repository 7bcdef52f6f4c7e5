"""The table says what is here and under which licence; nothing is downloaded that need not be, or may not."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from ray_jobs import weights
from ray_jobs.weights import WeightsConfig, main, table
from retrieval.models import known_weights
from retrieval.models.known_weights import DOWNLOADS, FOLDER, KNOWN

DATA = b"a network" * 300_000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two known networks, of which one lies in the weights' folder."""
    told = {"num_bytes": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest(), "shipped": ()}
    here = dataclasses.replace(KNOWN["sface"], name="here", file="here.onnx", licence="MIT", **told)
    away = dataclasses.replace(
        KNOWN["sface"], name="away", file="away.onnx", url="http://127.0.0.1:9/away.onnx", **told
    )
    for module in (known_weights, weights):
        monkeypatch.setattr(module, "KNOWN", {"here": here, "away": away})
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setenv(DOWNLOADS, "off")
    (tmp_path / "here.onnx").write_bytes(DATA)
    return tmp_path


def test_the_table_says_what_is_here(folder: Path) -> None:
    assert table().splitlines() == [
        "name   MB  licence     where",
        f"here  2.7  MIT         {folder}/here.onnx",
        "away  2.7  Apache-2.0  not here",
        "",
        f"Looked in {folder} and installed packages. Get one with --fetch NAME.",
    ]
    (folder / "away.onnx").write_bytes(DATA[:-1])
    assert "not usable" in table() and "is not away as it was published" in table()


def test_without_a_wish_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(WeightsConfig()) == {}
    assert capsys.readouterr().out == table() + "\n"


def test_what_is_here_is_not_fetched_and_its_licence_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(WeightsConfig(fetch=("here",))) == {"here": folder / "here.onnx"}
    said = capsys.readouterr().out
    assert said.startswith(f"here: {folder}/here.onnx\n") and "licence    MIT" in said and "trained on" in said


def test_a_licence_is_told_of_what_is_not_here_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(WeightsConfig(licence=("away",))) == {}
    said = capsys.readouterr().out
    assert "licence    Apache-2.0" in said and "published  https://" in said and f"{len(DATA):,} bytes" in said


@pytest.mark.parametrize("by_flag", [False, True])
def test_downloads_can_be_forbidden(folder: Path, monkeypatch: pytest.MonkeyPatch, by_flag: bool) -> None:
    if by_flag:
        monkeypatch.setenv(DOWNLOADS, "")
    with pytest.raises(ValueError, match=rf"'away' are not here, and downloads are off .*into {folder}/new"):
        main(WeightsConfig(fetch=("away",), to=str(folder / "new"), downloads=not by_flag))
    assert os.environ[DOWNLOADS] == "off"


def test_a_file_is_fetched_into_the_folder_that_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, Path]] = []

    def fetch(name: str, to: Path, progress: known_weights.Progress) -> Path:
        told.append((name, to))
        progress("download here", len(DATA), len(DATA))
        return to / "here.onnx"

    monkeypatch.setattr(known_weights, "fetch", fetch)
    assert main(WeightsConfig(fetch=("here",), to=str(folder / "new"))) == {"here": folder / "new" / "here.onnx"}
    assert told == [("here", folder / "new")], "though it lies elsewhere"


def test_unknown_names_are_refused_at_once() -> None:
    wishes: list[dict[str, Any]] = [{"fetch": ("there",)}, {"licence": ("there",)}]
    for wish in wishes:
        with pytest.raises(ValueError, match="Unknown weights 'there'. Choose one of: here, away"):
            WeightsConfig(**wish)
