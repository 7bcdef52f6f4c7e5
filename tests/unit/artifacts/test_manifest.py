"""The life of a step's folder: begin, books, seal; what a fingerprint names, and what it does not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import pyarrow as pa
import pytest

from retrieval.artifacts import manifest as artifacts_manifest
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import hash_file
from retrieval.artifacts.manifest import (
    MANIFEST,
    STARTED,
    Books,
    Manifest,
    check_files,
    held_so_far,
    read_manifest,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepConfig:
    size: int = 218
    num_workers: int = 2


def seal(folder: Folder, **changes: object) -> Manifest:
    arguments = {"kind": "embeddings", "config": StepConfig(), "inputs": {"model": "m1"}, "counts": {"num": 1}}
    return artifacts_manifest.seal(folder, **{**arguments, **changes})  # type: ignore[arg-type]


def begin(folder: Folder, **changes: object) -> Manifest | None:
    arguments = {"kind": "embeddings", "config": StepConfig(), "inputs": {"model": "m1"}}
    return artifacts_manifest.begin(folder, **{**arguments, **changes})  # type: ignore[arg-type]


def test_a_folder_is_begun_resumed_sealed_and_then_found_done(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path / "out")
    assert begin(folder) is None
    assert begin(folder) is None, "started, not finished: there is still work to do"
    folder.write_bytes("part", b"abc")
    sealed = seal(folder)
    assert begin(folder) == sealed
    assert read_manifest(folder, "embeddings") == sealed
    assert set(folder.list()) == {"part", MANIFEST}
    assert sealed.files == {"part": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}  # FIPS 180


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"config": StepConfig(size=96)}, r"config.size: 218 there, 96 wanted"),
        ({"inputs": {"model": "m2"}}, r"inputs.model: 'm1' there, 'm2' wanted"),
        ({"inputs": {"model": "m1", "collection": "c1"}}, r"inputs.collection: None there, 'c1' wanted"),
        ({"kind": "index"}, r"kind: embeddings there, index wanted"),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_begin_refuses_other_work_and_says_what_differs(
    tmp_path: Path, changes: dict[str, object], named: str, finished: bool
) -> None:
    folder = Folder.of(tmp_path)
    begin(folder)
    if finished:
        seal(folder)
    with pytest.raises(ValueError, match=named):
        begin(folder, **changes)


def test_begin_ignores_settings_that_do_not_change_the_output(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    begin(folder, ignore=["num_workers"])
    assert begin(folder, config=StepConfig(num_workers=9), ignore=["num_workers"]) is None
    sealed = seal(folder, ignore=["num_workers"])
    assert begin(folder, config=StepConfig(num_workers=5), ignore=["num_workers"]) == sealed
    with pytest.raises(ValueError, match="size"):
        begin(folder, config=StepConfig(size=1), ignore=["num_workers"])


def test_what_held_each_time_is_kept_until_the_seal(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    begin(folder)
    assert [held_so_far(folder, "large", now) for now in (True, True, False, True)] == [True, True, False, False]
    assert held_so_far(folder, "other", True)
    assert begin(folder) is None, "it is no other work for that"
    folder.write_bytes("a", b"x")
    seal(folder)
    assert begin(folder) is not None


def test_begin_refuses_a_folder_of_someone_else(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(ValueError, match="not begun by this project"):
        begin(Folder.of(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_an_unsealed_folder_is_not_an_artefact(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        read_manifest(Folder.of(tmp_path / "nowhere"), "model")
    begin(Folder.of(tmp_path))
    with pytest.raises(ValueError, match="started and not finished"):
        read_manifest(Folder.of(tmp_path), "embeddings")
    seal(Folder.of(tmp_path))
    with pytest.raises(ValueError, match="holds a 'embeddings', expected a 'model'"):
        read_manifest(Folder.of(tmp_path), "model")


def test_a_leftover_of_a_killed_writer_is_not_a_file_of_the_folder(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    begin(folder)
    folder.write_bytes("part", b"whole")
    (tmp_path / "part.tmp-0badf00d").write_bytes(b"ha")
    assert "part.tmp-0badf00d" not in folder.list()
    assert set(seal(folder).files) == {"part"}


def test_seal_refuses_files_nobody_hashed_and_hashes_without_a_file(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    begin(folder)
    folder.write_bytes("a", b"")
    with pytest.raises(ValueError, match=r"\['a', 'b'\]"):
        seal(folder, files={"b": "0"})
    assert not folder.exists(MANIFEST)


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


def test_sealing_ends_the_claim(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    begin(folder)
    assert folder.read_json(STARTED) == {
        "kind": "embeddings",
        "config": {"size": 218, "num_workers": 2},
        "inputs": {"model": "m1"},
    }
    assert seal(folder).files == {}, "neither the claim nor the manifest is content"
    assert seal(folder).files == {} and not folder.exists(STARTED)


def test_a_claim_with_settings_that_no_longer_count_is_gone_on_with(tmp_path: Path) -> None:
    """Begun by a version that compared the setting, finished by one that does not."""
    folder = Folder.of(tmp_path)
    begin(folder)
    assert begin(folder, config=StepConfig(num_workers=9), ignore=["num_workers"]) is None
    with pytest.raises(ValueError, match="num_workers: 2 there, 9 wanted"):
        begin(folder, config=StepConfig(num_workers=9))
    sealed = seal(folder)
    assert begin(folder, config=StepConfig(num_workers=9), ignore=["num_workers"]) == sealed


def test_every_difference_is_named(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    seal(folder)
    with pytest.raises(ValueError) as refused:
        begin(folder, kind="index", config={"size": 1, "shape": 2}, inputs={})
    for part in ("kind: embeddings", "config.num_workers: 2 there, None", "config.shape: None there, 2 wanted"):
        assert part in str(refused.value)
    assert "config.size: 218 there, 1 wanted" in str(refused.value)
    assert "inputs.model: 'm1' there, None wanted" in str(refused.value)
    assert "another output folder" in str(refused.value)


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


@pytest.mark.parametrize(("kind", "says"), [("index", "was made .* make it again"), ("tuples", "were made .* them")])
def test_what_was_made_from_something_else_is_refused(tmp_path: Path, kind: str, says: str) -> None:
    sealed = seal(Folder.of(tmp_path), kind=kind, inputs={"model": "m" * 64, "collection": "c" * 64})
    artifacts_manifest.check_made_from("W/x", sealed, "model", "m" * 64)
    artifacts_manifest.check_made_from("W/x", sealed, "collection", "c" * 64)
    with pytest.raises(ValueError, match=f"The {kind} W/x {says}"):
        artifacts_manifest.check_made_from("W/x", sealed, "model", "c" * 64)
    with pytest.raises(ValueError, match="made with collection c{12}, not with the one given, m{12}\\."):
        artifacts_manifest.check_made_from("W/x", sealed, "collection", "m" * 64)
    with pytest.raises(ValueError, match="made with photos None"):
        artifacts_manifest.check_made_from("W/x", sealed, "photos", "m" * 64)


@pytest.mark.parametrize(
    ("taken", "kept", "rejected"), [(3, 3, {}), (5, 2, {"no-face": 2, "truncated": 1}), (0, 0, {})]
)
def test_books_that_balance(taken: int, kept: int, rejected: dict[str, int]) -> None:
    assert Books(stage="ingest", taken=taken, kept=kept, rejected=rejected).taken == taken


@pytest.mark.parametrize(("taken", "kept", "rejected"), [(3, 2, {}), (3, 3, {"no-face": 1}), (2, 3, {})])
def test_books_that_do_not_balance_are_refused(taken: int, kept: int, rejected: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"'ingest' do not balance: {taken} in"):
        Books(stage="ingest", taken=taken, kept=kept, rejected=rejected)


def test_books_are_kept_in_the_manifest(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    begin(folder)
    manifest = seal(folder, books=[Books(stage="ingest", taken=2, kept=1, rejected={"no-face": 1})])
    assert read_manifest(folder).books == manifest.books
    assert manifest.books == [{"stage": "ingest", "taken": 2, "kept": 1, "rejected": {"no-face": 1}}]


def test_files_that_are_gone_or_changed_are_told_and_only_those_asked_for_are_read(tmp_path: Path) -> None:
    folder, sealed = Folder.of(tmp_path), {}
    for name in ("a", "b"):
        folder.write_bytes(name, name.encode())
        sealed[name] = hash_file(folder, name)
    check_files(folder, sealed)
    folder.write_bytes("b", b"other")
    check_files(folder, sealed, hashed=["a", "c"])
    with pytest.raises(ValueError, match="/b is not the file that was sealed"):
        check_files(folder, sealed)
    folder.remove("b")
    with pytest.raises(ValueError, match=r"lacks b, which was sealed there \(1 of 2 files\)"):
        check_files(folder, sealed, hashed=["a"])
