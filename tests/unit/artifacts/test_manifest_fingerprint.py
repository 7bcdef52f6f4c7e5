"""What a fingerprint names, and what is kept beside it: when, where and how long, and files aside."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import pyarrow as pa
import pytest

from retrieval.artifacts import manifest as artifacts_manifest
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import hash_file
from retrieval.artifacts.manifest import MANIFEST, Books, read_manifest
from tests.support.steps import StepConfig, begin, seal


def test_fingerprints_name_content_not_time_or_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prints = []
    for name, content in [("one", b"1"), ("two", b"1"), ("three", b"3")]:
        folder = Folder.of(tmp_path / name)
        begin(folder)
        folder.write_bytes("part", content)
        prints.append(seal(folder).fingerprint)
        monkeypatch.setattr(artifacts_manifest, "versions", lambda name=name: {"torch": name})
    assert prints[0] == prints[1] != prints[2]


BOOK = Books(stage="embed", taken=1, kept=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "index"},
        {"config": StepConfig(size=96)},
        {"config": StepConfig(num_workers=3)},
        {"inputs": {"model": "m2"}},
        {"inputs": {"photos": "m1"}},
        {"counts": {"num": 2}},
        {"books": [BOOK, BOOK]},
        {"books": [Books(stage="embed", taken=2, kept=1, rejected={"broken": 1})]},
        {"files": {"part": "0" * 64}},
        {"ignore": ("size",)},
        {"aside": ("part",)},
    ],
    ids=str,
)
def test_a_fingerprint_depends_on_all_that_says_what_the_content_is(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = Folder.of(tmp_path)
    folder.write_bytes("part", b"abc")
    assert seal(folder, books=[BOOK]).fingerprint == seal(folder, books=[BOOK]).fingerprint
    assert seal(folder, **{"books": [BOOK], **changes}).fingerprint != seal(folder, books=[BOOK]).fingerprint


def test_a_setting_that_is_ignored_is_in_neither_the_manifest_nor_the_fingerprint(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    prints = {seal(folder, config=StepConfig(num_workers=n), ignore=["num_workers"]).fingerprint for n in (1, 2)}
    assert len(prints) == 1
    assert read_manifest(folder).config == {"size": 218}


def test_a_manifest_says_what_it_was_made_with(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    before = datetime.now(UTC).replace(microsecond=0)
    sealed = seal(folder, counts={"where": Path("a"), "pair": (1, 2)})
    assert before <= datetime.fromisoformat(sealed.created) <= datetime.now(UTC)
    assert sealed.versions["numpy"] == numpy.__version__ and sealed.versions["pyarrow"] == pa.__version__
    assert sealed.counts == {"where": "a", "pair": [1, 2]}, "as it will be read back"
    assert sealed.inputs == {"model": "m1"} and sealed.kind == "embeddings"


def test_versions_are_of_the_libraries_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"torch", "ray"} <= set(artifacts_manifest.versions())
    monkeypatch.setattr(artifacts_manifest, "_VERSIONS_OF", ("numpy", "no-such-library", "pyarrow"))
    assert artifacts_manifest.versions() == {"numpy": numpy.__version__, "pyarrow": pa.__version__}


def test_what_differs_each_time_is_kept_outside_the_fingerprint_and_hashed_all_the_same(tmp_path: Path) -> None:
    made = []
    for name, seconds, picture in (("one", 1.5, b"red"), ("two", 7.25, b"blue")):
        folder = Folder.of(tmp_path / name)
        folder.write_bytes("part", b"abc")
        folder.write_bytes("curves.png", picture)
        folder.write_bytes("sheets/first.png", picture)
        folder.write_bytes("timings.json", picture)
        run = {"seconds": seconds, "formats": {"bfloat16": 3}}
        made.append(seal(folder, run=run, aside=("timings.json", "*.png", "*.jpg")))
        assert read_manifest(folder) == made[-1]
    assert made[0].fingerprint == made[1].fingerprint
    assert made[0].files == made[1].files == {"part": hash_file(folder, "part")}
    assert made[1].run == {"seconds": 7.25, "formats": {"bfloat16": 3}}
    assert list(made[1].aside) == ["curves.png", "sheets/first.png", "timings.json"]
    assert made[1].aside == dict.fromkeys(made[1].aside, hash_file(folder, "curves.png"))
    assert made[0].aside["curves.png"] != made[1].aside["curves.png"]
    assert made[1].all_files == made[1].files | made[1].aside and len(made[1].all_files) == 4
    # All else decides: a file that is not aside, and each of the other fields.
    assert seal(folder, aside=("*.png",)).fingerprint != made[1].fingerprint


def test_files_aside_may_be_left_to_seal_to_hash(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    for name in ("part", "other", "curves.png"):
        folder.write_bytes(name, name.encode())
    known = {name: f"hash of {name}" for name in ("part", "other", "curves.png")}
    assert seal(folder, files=known, aside=("*.png",)).aside == {"curves.png": "hash of curves.png"}
    del known["curves.png"]
    sealed = seal(folder, files=known, aside=("*.png",))
    assert (sealed.files, sealed.aside) == (known, {"curves.png": hash_file(folder, "curves.png")})
    with pytest.raises(ValueError, match=r"\['curves.png'\]"):
        seal(folder, files=known)
    with pytest.raises(ValueError, match=r"\['gone.png'\]"):
        seal(folder, files={**known, "gone.png": "0"}, aside=("*.png",))


def test_a_manifest_made_before_there_was_run_and_aside_still_loads(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    folder.write_bytes("part", b"abc")
    sealed = seal(folder)
    old = folder.read_json(MANIFEST)
    assert (old.pop("run"), old.pop("aside")) == ({}, {})
    folder.write_json(MANIFEST, old)
    assert read_manifest(folder) == sealed
