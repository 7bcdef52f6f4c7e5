"""compact on a real local Ray: the gallery that the same changes make without one; nothing erased is left."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ray_jobs.compact import CompactConfig, main
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.published import Pair
from retrieval.live.folding.erasure import erase
from retrieval.live.store import Store
from retrieval.live.view import GalleryView
from tests.support.folding import bytes_below, fold
from tests.support.gallery import new_image, sealed_gallery

pytestmark = pytest.mark.usefixtures("ray_local")


def test_a_cluster_folds_as_one_process_does(tmp_path: Path) -> None:
    made, gone = sealed_gallery(tmp_path / "a", people=False), "a/ada-000.jpg"
    store = Store.open(made.workspace)
    store.add([new_image("new/one.jpg", 1, label="ada"), new_image("new/two.jpg", 2)], made.pair.model_fingerprint)
    erase(GalleryView(made.pair, store), [gone])
    copy = Folder.of(shutil.copytree(made.workspace.path, tmp_path / "b"))
    _, _, want = fold(Pair.open(copy.uri), Store.open(copy))

    folders = main(CompactConfig(workspace=made.workspace.uri, wait_s=0))
    pair = Pair.open(made.workspace.uri)
    assert (
        (pair.collection, pair.index)
        == (folders["collection"], folders["index"])
        != (
            made.pair.collection,
            made.pair.index,
        )
    )
    assert pair.version == want.version, "the same content, whoever did which part"
    assert read_manifest(pair.index).inputs == read_manifest(want.index).inputs
    view = GalleryView(pair, store)
    assert len(view) == 41 and view.entry("new/one.jpg").where == view.entry("new/two.jpg").where == "sealed"
    left = bytes_below(made.workspace)
    assert made.crops[gone] not in left and made.vectors[gone].tobytes() not in left
    assert made.vectors["a/dan-003.jpg"].tobytes() in left
    assert main(CompactConfig(workspace=made.workspace.uri, wait_s=0)) == folders
