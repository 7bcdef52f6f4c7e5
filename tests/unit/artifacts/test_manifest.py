"""The life of a step's folder: begun, gone on with or refused, sealed, its books balanced, its files checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.artifacts import manifest as artifacts_manifest
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import hash_file
from retrieval.artifacts.manifest import MANIFEST, STARTED, Books, check_files, held_so_far, read_manifest
from tests.support.steps import StepConfig, begin, seal


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
