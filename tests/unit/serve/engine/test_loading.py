"""From what was published to a version that is fit to answer, on this node's disk, or a sentence that says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.published import CURRENT, history
from serve.engine.loading import load, load_first, look
from serve.engine.selftest import Unfit
from tests.support.inside import settings
from tests.support.versions import flip, make_versions
from tests.support.workspace import make_workspace


def test_a_version_is_copied_to_the_node_opened_there_and_let_go_at_its_end(tmp_path: Path) -> None:
    made = make_workspace(tmp_path, num_identities=2)
    current, cache = history(made.folder)[0], tmp_path / "cache"
    args = settings(made, cache=str(cache), cache_local=True)
    version = load(args, current)
    assert Path(version.pair.index.path).parent == cache and version.published == current
    assert version.name == current.version
    small = settings(made, cache=str(cache), cache_local=True, cache_gb=1e-6)
    with pytest.raises(Unfit, match="copies of this node may take"):
        load(small.model_copy(update={"cache": str(tmp_path / "other")}), current)
    version.close()
    assert load(args, current).name == current.version


def test_the_first_is_the_newest_that_is_fit(tmp_path: Path) -> None:
    made, names = make_versions(tmp_path, 3, num_identities=2)
    args = settings(made)
    first = load_first(args)
    seen = look(made.folder)
    assert seen is not None and (first.version.name, first.why_not, first.seen) == (names[2], "", seen.digest)
    flip(made.folder, "index/2/ids.parquet")
    flip(made.folder, "model/1/model.safetensors")
    first = load_first(args)
    assert first.version.name == names[0] and "index/2/ids.parquet is not the file" in first.why_not
    (made.folder / "index/test").remove("ids.parquet")
    with pytest.raises(ValueError, match=f"No version of .* can be served. The current one, {names[2]}: .*index/2/ids"):
        load_first(args)


def test_looking_tells_nothing_something_and_nonsense_apart(tmp_path: Path) -> None:
    workspace = Folder.of(tmp_path)
    assert look(workspace) is None
    workspace.write_bytes(CURRENT, b"{")
    seen = look(workspace)
    assert seen is not None and isinstance(seen.published, Unfit) and "cannot be read" in str(seen.published)


def test_what_breaks_inside_a_library_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_workspace(tmp_path, num_identities=2)

    def broken(*_: object) -> None:
        raise RuntimeError("a stack of a library")

    monkeypatch.setattr("serve.engine.version.Version.load", broken)
    with pytest.raises(Unfit, match=r"It fails while it is loaded \(RuntimeError\)"):
        load(settings(made), history(made.folder)[0])
