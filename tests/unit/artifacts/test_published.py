"""What is published was made from each other, is still what was published, and may lie anywhere."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from retrieval.artifacts import manifest as artifacts_manifest
from retrieval.artifacts.calibration import Calibration, write_calibrations
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import MANIFEST, read_manifest
from retrieval.artifacts.published import (
    CURRENT,
    KEPT,
    PREVIOUS,
    Pair,
    find_version,
    go_to,
    history,
    is_published,
    publish,
    read_current,
    version_name,
)


def make(path: Path, number: int = 123, **inputs: str) -> dict[str, Folder]:
    """A sealed collection, model and index below `path`, the index of the two, or of what `inputs` says instead."""
    folders = {name: Folder.of(path / name / f"{number:04d}") for name in ("collection", "model", "index")}
    prints, config = {}, {"number": number}
    for name in ("collection", "model"):
        artifacts_manifest.begin(folders[name], kind=name, config=config, inputs={})
        sealed = artifacts_manifest.seal(folders[name], kind=name, config=config, inputs={}, counts={})
        prints[name] = sealed.fingerprint
    prints |= inputs
    artifacts_manifest.begin(folders["index"], kind="index", config={}, inputs=prints)
    artifacts_manifest.seal(folders["index"], kind="index", config={}, inputs=prints, counts={})
    return folders


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A published workspace."""
    publish(Folder.of(tmp_path), **make(tmp_path))
    return tmp_path


def test_publish_points_to_a_matching_triple_and_the_workspace_can_move(tmp_path: Path) -> None:
    here = Folder.of(tmp_path / "here")
    publish(here, **make(tmp_path / "here"))
    os.rename(tmp_path / "here", tmp_path / "there")
    moved = read_current(Folder.of(tmp_path / "there"))
    assert moved == {name: Folder.of(tmp_path / "there" / name / "0123") for name in ("collection", "model", "index")}
    assert read_manifest(moved["index"], "index").kind == "index"


def test_folders_elsewhere_are_named_whole(tmp_path: Path) -> None:
    workspace = Folder.of(tmp_path / "w")
    folders = make(tmp_path / "elsewhere")
    publish(workspace, **folders)
    assert read_current(workspace) == folders
    edit(tmp_path / "w" / CURRENT, paths={"collection": "/c", "model": "s3://bucket/model", "index": "index/7"})
    there = {"collection": Folder("/c"), "model": Folder("s3://bucket/model"), "index": workspace / "index/7"}
    assert read_current(workspace) == there


@pytest.mark.parametrize("kind", ["model", "collection"])
def test_publish_refuses_an_index_of_another_model_or_collection(tmp_path: Path, kind: str) -> None:
    workspace = Folder.of(tmp_path)
    inputs: dict[str, Any] = {kind: "f00d"}
    folders = make(tmp_path, **inputs)
    with pytest.raises(ValueError, match=f"made with {kind} f00d"):
        publish(workspace, **folders)
    with pytest.raises(ValueError, match="no pipeline has finished there"):
        read_current(workspace)


@pytest.mark.parametrize("kind", ["collection", "model", "index"])
def test_publish_refuses_a_folder_that_is_not_what_it_is_given_as(tmp_path: Path, kind: str) -> None:
    folders = make(tmp_path)
    with pytest.raises(ValueError, match=f"expected a '{kind}'"):
        publish(Folder.of(tmp_path), **{**folders, kind: folders["index" if kind == "model" else "model"]})


def test_a_published_pair_opens_where_it_was_copied_to(workspace: Path) -> None:
    os.rename(workspace, moved := workspace.parent / "moved")
    pair = Pair.open(str(moved))
    assert pair.workspace == Folder.of(moved)
    for kind in ("collection", "model", "index"):
        folder = getattr(pair, kind)
        assert folder == Folder.of(moved / kind / "0123")
        assert getattr(pair, f"{kind}_fingerprint") == read_manifest(folder, kind).fingerprint
    assert read_manifest(pair.index).inputs["model"] == pair.model_fingerprint


def test_an_empty_workspace_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pipeline has finished there"):
        Pair.open(str(tmp_path))


@pytest.mark.parametrize("kind", ["model", "collection", "index"])
def test_a_folder_replaced_after_publishing_is_refused(workspace: Path, kind: str) -> None:
    edit(workspace / kind / "0123" / MANIFEST, fingerprint="f" * 64)
    with pytest.raises(ValueError, match=f"has fingerprint ffff.*published the {kind}.*replaced since"):
        Pair.open(str(workspace))


@pytest.mark.parametrize("kind", ["model", "collection"])
def test_an_index_of_another_model_or_collection_is_refused(workspace: Path, kind: str) -> None:
    manifest = workspace / "index/0123" / MANIFEST
    edit(manifest, inputs={**json.loads(manifest.read_text())["inputs"], kind: "e" * 64})
    with pytest.raises(ValueError, match=f"index/0123 was made with {kind} eeee.*make it again"):
        Pair.open(str(workspace))


def test_an_unfinished_index_is_refused(workspace: Path) -> None:
    (workspace / "index/0123" / MANIFEST).unlink()
    with pytest.raises(ValueError, match="No sealed index"):
        Pair.open(str(workspace))


def test_what_current_names_must_be_there(workspace: Path) -> None:
    paths = json.loads((workspace / CURRENT).read_text())["paths"]
    edit(workspace / CURRENT, paths={**paths, "model": "model/gone"})
    with pytest.raises(ValueError, match="No sealed model"):
        Pair.open(str(workspace))


def report_of(path: Path, model: str) -> Folder:
    """A sealed report of a model, with a calibration of it."""
    folder = Folder.of(path / "report" / "0123")
    inputs = {"collection": "c" * 64, "after.model": model}
    artifacts_manifest.begin(folder, kind="report", config={}, inputs=inputs)
    write_calibrations(folder, {"after": Calibration(model=model, people=7)})
    artifacts_manifest.seal(folder, kind="report", config={}, inputs=inputs, counts={})
    return folder


def test_the_report_of_the_model_may_stand_beside_and_says_what_scores_mean(tmp_path: Path) -> None:
    folders = make(tmp_path)
    model = read_manifest(folders["model"]).fingerprint
    publish(Folder.of(tmp_path), **folders, report=report_of(tmp_path, model))
    pair = Pair.open(str(tmp_path))
    assert pair.report == Folder.of(tmp_path / "report/0123")
    assert pair.calibration() == Calibration(model=model, people=7)
    edit(tmp_path / "report/0123" / MANIFEST, fingerprint="f" * 64)
    with pytest.raises(ValueError, match="published the report"):
        Pair.open(str(tmp_path))


def test_a_report_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not measure the model"):
        publish(Folder.of(tmp_path), **make(tmp_path), report=report_of(tmp_path, "a" * 64))
    assert not (tmp_path / CURRENT).exists()


def test_without_a_report_nothing_is_said_of_scores(workspace: Path) -> None:
    pair = Pair.open(str(workspace))
    assert pair.report is None and pair.calibration() is None


@pytest.mark.parametrize(("kind", "of"), [("people", "index"), ("features", "collection")])
def test_what_stands_beside_is_published_with_what_it_is_of_and_no_other(tmp_path: Path, kind: str, of: str) -> None:
    workspace, folders = Folder.of(tmp_path), make(tmp_path)
    beside = {}
    for name, made_from in (("mine", read_manifest(folders[of]).fingerprint), ("another", "0" * 64)):
        beside[name] = workspace / kind / name
        artifacts_manifest.begin(beside[name], kind=kind, config={}, inputs={of: made_from})
        artifacts_manifest.seal(beside[name], kind=kind, config={}, inputs={of: made_from}, counts={})
    assert not is_published(workspace)
    with pytest.raises(ValueError, match="another"):
        publish(workspace, **folders, **{kind: beside["another"]})
    publish(workspace, **folders, **{kind: beside["mine"]})
    assert is_published(workspace) and read_current(workspace)[kind] == beside["mine"]
    pair = Pair.open(str(tmp_path))
    assert pair.index == folders["index"] and getattr(pair, kind) == beside["mine"]


def published_thrice(path: Path) -> tuple[Folder, list[str]]:
    """A workspace that published three versions, and their names in order."""
    workspace = Folder.of(path)
    return workspace, [publish(workspace, **make(path, number)) for number in range(3)]


def test_a_version_is_named_by_the_three_fingerprints(workspace: Path) -> None:
    pair = Pair.open(str(workspace))
    prints = pair.collection_fingerprint, pair.model_fingerprint, pair.index_fingerprint
    assert pair.version == version_name(*prints) == hashlib.sha256("".join(prints).encode()).hexdigest()[:12]
    assert len({pair.version, version_name(*reversed(prints))}) == 2


def test_what_was_published_is_remembered_in_its_order_and_one_step_goes_back(tmp_path: Path) -> None:
    workspace, names = published_thrice(tmp_path)
    current, kept = history(workspace)
    assert [one.version for one in kept] == names and current == kept[-1] and len(set(names)) == 3
    assert all(datetime.fromisoformat(one.at).utcoffset() == timedelta(0) for one in kept)
    assert go_to(workspace, PREVIOUS).version == names[1] == Pair.open(str(tmp_path)).version
    assert go_to(workspace, PREVIOUS).version == names[0] == Pair.open(str(tmp_path)).version
    with pytest.raises(ValueError, match=f"no version before the current one, {names[0]}"):
        go_to(workspace, PREVIOUS)
    assert go_to(workspace, names[2][:4]).version == names[2] == Pair.open(str(tmp_path)).version
    assert [one.version for one in history(workspace)[1]] == names


def test_publishing_again_makes_a_version_the_newest_and_no_second_of_it(tmp_path: Path) -> None:
    workspace, names = published_thrice(tmp_path)
    folders = {kind: tmp_path / kind / "0000" for kind in ("collection", "model", "index")}
    assert publish(workspace, **{kind: Folder.of(path) for kind, path in folders.items()}) == names[0]
    assert [one.version for one in history(workspace)[1]] == [names[1], names[2], names[0]]


def test_only_the_last_versions_are_remembered(tmp_path: Path) -> None:
    workspace = Folder.of(tmp_path)
    names = [publish(workspace, **make(tmp_path, number)) for number in range(KEPT + 2)]
    assert [one.version for one in history(workspace)[1]] == names[2:]
    go_to(workspace, names[2])
    publish(workspace, **make(tmp_path, KEPT + 2))
    assert names[2] not in [one.version for one in history(workspace)[1]]


def test_a_workspace_from_before_there_was_a_history_has_one_version(workspace: Path) -> None:
    told = json.loads((workspace / CURRENT).read_text())
    old = {"paths": told["paths"], "fingerprints": told["fingerprints"]}
    (workspace / CURRENT).write_text(json.dumps(old))
    folder = Folder.of(workspace)
    current, kept = history(folder)
    assert kept == [current] and current.at == ""
    first, new = current.version, publish(folder, **make(workspace, 7))
    assert [one.version for one in history(folder)[1]] == [first, new]
    assert go_to(folder, PREVIOUS).version == first


def test_a_version_that_is_not_known_or_not_clear_is_refused_with_those_there_are(tmp_path: Path) -> None:
    workspace, names = published_thrice(tmp_path)
    for version in ("", names[0][:3], "nonsense", "/etc"):
        with pytest.raises(ValueError, match=f"no such version. Choose one of: {', '.join(names)}"):
            find_version(workspace, version)
    told = json.loads((tmp_path / CURRENT).read_text())
    assert go_to(workspace, names[2]).version == names[2]
    assert json.loads((tmp_path / CURRENT).read_text()) == told


def test_going_back_to_what_is_gone_or_was_replaced_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    workspace, names = published_thrice(tmp_path)
    before = (tmp_path / CURRENT).read_bytes()
    edit(tmp_path / "model/0001" / MANIFEST, fingerprint="f" * 64)
    (tmp_path / "index/0000" / MANIFEST).unlink()
    for version, why in ((names[1], "it was replaced since"), (names[0], "No sealed index")):
        with pytest.raises(ValueError, match=why):
            go_to(workspace, version)
    assert (tmp_path / CURRENT).read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"paths": {}, "fingerprints": {}}', "null"])
def test_what_is_no_publication_is_told_in_one_sentence(workspace: Path, text: str) -> None:
    (workspace / CURRENT).write_text(text)
    with pytest.raises(ValueError, match="cannot be read .*run the pipeline again"):
        Pair.open(str(workspace))
    version = publish(Folder.of(workspace), **make(workspace, 7))
    assert [one.version for one in history(Folder.of(workspace))[1]] == [version]


def test_several_publishers_at_once_are_all_remembered(tmp_path: Path) -> None:
    workspace, made = Folder.of(tmp_path), [make(tmp_path, number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda folders: publish(workspace, **folders), made))
    assert sorted(one.version for one in history(workspace)[1]) == sorted(names)


def test_a_workspace_that_is_not_there_is_not_made_by_asking(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no CURRENT\.json"):
        go_to(Folder.of(tmp_path / "nothing"), PREVIOUS)
    assert list(tmp_path.iterdir()) == []
