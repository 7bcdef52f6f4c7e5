"""Single crops of the gallery, by row of the index."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retrieval.artifacts.collection import Jpegs
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.index import IDS
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.published import Pair
from serve.gallery import Gallery
from tests.support.workspace import Workspace, make_workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("gallery"))


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


def test_the_crops_asked_for_last_are_kept_and_no_more(made: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    pair, read = Pair.open(str(made.folder)), []
    gallery = Gallery(pair.collection, pair.index, num_cached=2)
    ids = pair.index.read_table(IDS).to_pylist()
    stored = Jpegs.read

    def watched(self: Jpegs, places: list[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        read.extend(places)
        return stored(self, places)

    monkeypatch.setattr(Jpegs, "read", watched)
    for row in (5, 5, 6, 5, 7, 5, 6):
        gallery.jpeg(row)
    assert read == [(ids[row]["part"], ids[row]["row_in_part"]) for row in (5, 6, 7, 6)]


def test_a_row_that_is_not_there_is_not_read_from_the_end(made: Workspace) -> None:
    pair = Pair.open(str(made.folder))
    gallery = Gallery(pair.collection, pair.index)
    assert len(gallery) == 20
    for row in (-1, 20):
        with pytest.raises(IndexError, match=f"Row {row} is not in 0..19"):
            gallery.jpeg(row)
