"""What the query service loads: a matching model and index, and single crops of the gallery."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from retrieval.artifacts import hashing
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import MANIFEST, read_manifest
from retrieval.artifacts.published import CURRENT, Pair
from retrieval.images.settings import PrepareConfig
from retrieval.search.index import IDS
from serve.embedder import query_preparation
from serve.gallery import Gallery
from tests.support.workspace import Workspace, make_workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def copy(made: Workspace, tmp_path: Path) -> Iterator[Path]:
    """A copy that a test may damage; its paths are relative, so it works where it is."""
    yield Path(shutil.copytree(made.folder.path, tmp_path / "copy"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_published_pair_opens_where_it_was_copied_to(copy: Path) -> None:
    pair = Pair.open(str(copy))
    assert pair.index == Folder.of(copy / "index/test")
    seal = read_manifest(pair.index)
    assert (seal.fingerprint, seal.inputs["model"]) == (pair.index_fingerprint, pair.model_fingerprint)
    assert seal.inputs["collection"] == pair.collection_fingerprint


def test_an_empty_workspace_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pipeline has finished there"):
        Pair.open(str(tmp_path))


@pytest.mark.parametrize("kind", ["model", "collection", "index"])
def test_a_folder_replaced_after_publishing_is_refused(copy: Path, kind: str) -> None:
    edit(copy / kind / "test" / MANIFEST, fingerprint="f" * 64)
    with pytest.raises(ValueError, match=f"published the {kind}.*replaced since"):
        Pair.open(str(copy))


@pytest.mark.parametrize("kind", ["model", "collection"])
def test_an_index_of_another_model_or_collection_is_refused(copy: Path, kind: str) -> None:
    manifest = copy / "index/test" / MANIFEST
    edit(manifest, inputs={**json.loads(manifest.read_text())["inputs"], kind: "e" * 64})
    with pytest.raises(ValueError, match=f"was made with {kind} eeee.*not with the one given, .*make it again"):
        Pair.open(str(copy))


def test_an_unfinished_index_is_refused(copy: Path) -> None:
    (copy / "index/test" / MANIFEST).unlink()
    with pytest.raises(ValueError, match="No sealed index"):
        Pair.open(str(copy))


def test_what_current_names_must_be_there(copy: Path) -> None:
    paths = json.loads((copy / CURRENT).read_text())["paths"]
    edit(copy / CURRENT, paths={**paths, "model": "model/gone"})
    with pytest.raises(ValueError, match="No sealed model"):
        Pair.open(str(copy))


def test_the_gallery_reads_every_crop_by_its_row(made: Workspace) -> None:
    pair = Pair.open(str(made.folder))
    gallery = Gallery(pair.collection, pair.index, num_cached=2)
    stored = {}
    for part in range(sum(name.startswith("images/") for name in read_manifest(pair.collection).files)):
        table = pair.collection.read_table(f"images/{part_name(part)}", columns=["image_id", "jpeg"])
        stored |= {row["image_id"]: row["jpeg"] for row in table.to_pylist()}
    expected = [stored[image_id] for image_id in pair.index.read_table(IDS)["image_id"].to_pylist()]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(gallery.jpeg, range(len(gallery)))) == expected
    for row in (-1, len(gallery)):
        with pytest.raises(IndexError):
            gallery.jpeg(row)


def test_a_crop_in_a_later_row_group_is_found(made: Workspace, tmp_path: Path) -> None:
    pair = Pair.open(str(made.folder))
    other = Folder.of(tmp_path / "collection")
    for name in (name for name in pair.collection.list() if name.startswith("images/")):
        other.write_table(name, pair.collection.read_table(name), row_group_size=3)
    one, two = Gallery(pair.collection, pair.index), Gallery(other, pair.index)
    assert [one.jpeg(row) for row in range(len(one))] == [two.jpeg(row) for row in range(len(two))]


def test_a_query_is_prepared_as_its_gallery_under_this_servers_limits() -> None:
    gallery = PrepareConfig(size=96, margin=0.3)
    query = query_preparation(hashing.plain(gallery), max_pixels=1000)
    assert (query.crop, query.size, query.margin, query.max_pixels) == ("haar", 96, 0.3, 1000)
    assert query_preparation({"crop": "none"}, 1000).crop == "none"
    assert query_preparation({"crop": "box"}, 1000).crop == "haar"
    with pytest.raises(TypeError):
        query_preparation({"colour": "blue"}, 1000)
