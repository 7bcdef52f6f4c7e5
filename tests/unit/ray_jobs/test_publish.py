"""One command lists the versions, goes back, goes to any, and publishes what was made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ray_jobs.publish import PublishConfig, main
from ray_jobs.runtime.tracking.runs import open_run
from ray_jobs.runtime.tracking.store import store_uri
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import begin, read_manifest, seal
from retrieval.artifacts.published import Pair, history
from tests.support.fake_jobs import sealed


def make(path: Path, number: int) -> dict[str, Folder]:
    """A sealed triple: one model for two indexes each."""
    folders = {
        "collection": sealed(path / "collection", "collection", "photos"),
        "model": sealed(path / f"model-{number // 2}", "model", f"weights {number // 2}"),
        "index": Folder.of(path / f"index-{number}"),
    }
    inputs = {kind: read_manifest(folders[kind]).fingerprint for kind in ("collection", "model")}
    work: dict[str, Any] = {"kind": "index", "config": {"number": number}, "inputs": inputs}
    begin(folders["index"], **work)
    seal(folders["index"], **work, counts={})
    return folders


def published_by_hand(path: Path, number: int) -> str:
    places: dict[str, Any] = {kind: str(folder) for kind, folder in make(path, number).items()}
    return main(PublishConfig(workspace=str(path), **places))


@pytest.fixture
def versions(tmp_path: Path) -> list[str]:
    """Names of four versions that were published in tmp_path; two with each model."""
    return [published_by_hand(tmp_path, number) for number in range(4)]


def test_folders_made_step_by_step_are_published_and_listed(
    versions: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(PublishConfig(workspace=str(tmp_path), list=True)) == versions[3] == Pair.open(str(tmp_path)).version
    lines = capsys.readouterr().out.splitlines()
    assert [line[:2] for line in lines] == ["  ", "  ", "  ", "* "]
    for number, (line, version) in enumerate(zip(lines, versions, strict=True)):
        assert line[2:14] == version and line.endswith(f"model model-{number // 2}  index index-{number}")


def test_one_command_goes_back_and_one_to_any(versions: list[str], tmp_path: Path) -> None:
    workspace = str(tmp_path)
    assert main(PublishConfig(workspace=workspace, back=True)) == versions[2]
    assert main(PublishConfig(workspace=workspace, back=True)) == versions[1]
    assert main(PublishConfig(workspace=workspace, to=versions[0][:6])) == versions[0]
    with pytest.raises(ValueError, match="remembers no version before"):
        main(PublishConfig(workspace=workspace, back=True))
    assert main(PublishConfig(workspace=workspace, to=versions[3])) == versions[3]
    with pytest.raises(ValueError, match="no such version"):
        main(PublishConfig(workspace=workspace, to="0123456789ab"))
    assert history(Folder.of(tmp_path))[0].version == versions[3]


def test_the_champion_is_served_with_its_newest_index(versions: list[str], tmp_path: Path) -> None:
    store = store_uri(None, tmp_path)
    with pytest.raises(ValueError, match="no champion of 'faces': it holds no model"):
        main(PublishConfig(workspace=str(tmp_path), champion="faces"))
    for number, best in ((0, 0.75), (2, 0.5)):
        folders = make(tmp_path, number)
        model = Folder.of(tmp_path / f"measured-{number}")
        work: dict[str, Any] = {"kind": "model", "config": {"of": number}, "inputs": {}}
        begin(model, **work)
        seal(model, **work, counts={"best_val_mAP": best})
        places = {"collection": folders["collection"], "model": model}
        open_run(store, experiment="e", key=str(number)).log_results(places, model_name="faces")
    with pytest.raises(ValueError, match="and no version that .* remembers has it"):
        main(PublishConfig(workspace=str(tmp_path), champion="faces"))
    first = read_manifest(Folder.of(tmp_path / "measured-0"))
    index, work = Folder.of(tmp_path / "index-champion"), {"collection": "", "model": first.fingerprint}
    work["collection"] = read_manifest(Folder.of(tmp_path / "collection")).fingerprint
    begin(index, kind="index", config={}, inputs=work)
    seal(index, kind="index", config={}, inputs=work, counts={})
    named: dict[str, Any] = {
        "collection": str(tmp_path / "collection"),
        "model": str(tmp_path / "measured-0"),
        "index": str(index),
    }
    version = main(PublishConfig(workspace=str(tmp_path), **named))
    assert main(PublishConfig(workspace=str(tmp_path), back=True)) == versions[3]
    assert main(PublishConfig(workspace=str(tmp_path), champion="faces")) == version
    with pytest.raises(ValueError, match="no champion of 'places': it has faces"):
        main(PublishConfig(workspace=str(tmp_path), champion="places"))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "Give one of"),
        ({"back": True, "to": "0123"}, "Give one of"),
        ({"list": True, "champion": "faces"}, "Give one of"),
        ({"index": "I"}, "--collection and --model missing"),
        ({"collection": "C", "model": "M", "index": "I", "back": True}, "Give one of"),
        ({"report": "R", "back": True}, "--report, --people and --features stand beside"),
        ({"features": "F", "list": True}, "--report, --people and --features stand beside"),
    ],
)
def test_what_is_not_one_thing_is_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        PublishConfig(workspace="W", **settings)


def test_nothing_published_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pipeline has finished there"):
        main(PublishConfig(workspace=str(tmp_path), list=True))
    assert list(tmp_path.iterdir()) == []
