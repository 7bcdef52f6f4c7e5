"""The gallery as it was indexed: refusals, what is kept in memory, and that nothing changes it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.artifacts.collection import Jpegs
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.index import IDS
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.published import Pair
from retrieval.live import sealed
from retrieval.live.sealed import SealedGallery, known
from retrieval.search.index import Searcher
from tests.support.gallery import Sealed, sealed_gallery
from tests.support.vectors import clustered
from tests.support.workspace import make_workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    return sealed_gallery(tmp_path_factory.mktemp("sealed"), factory="SQ8")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Twenty drawn faces, as the pipeline makes them."""
    return Pair.open(str(make_workspace(tmp_path_factory.mktemp("drawn")).folder))


def test_rows_are_told_with_what_is_known_of_them(made: Sealed) -> None:
    gallery = SealedGallery(made.pair)
    found = gallery.nearest(clustered(1, seed=3), 99)
    assert found.rows.shape == (1, 40)  # no more than there are
    rows = found.rows[0].tolist()
    hits = gallery.hits(rows, found.scores[0].tolist(), gallery.columns.person)
    assert [gallery.columns.row_of(hit.image_id) for hit in hits] == rows == [hit.row for hit in hits]
    for hit, row in zip(hits, rows, strict=True):
        entry = gallery.entry(row, gallery.columns.person)
        told = (hit.image_id, hit.label, hit.split, hit.person, hit.photo, hit.face)
        assert told == (entry.image_id, entry.label, entry.split, entry.person, entry.photo, entry.face)


def test_codes_are_said_to_be_codes_and_vectors_come_from_the_embeddings(made: Sealed) -> None:
    gallery = SealedGallery(made.pair)
    assert (gallery.vectors, gallery.factory) == ("embeddings", "SQ8")
    name = gallery.columns.ids[3].as_py()
    assert gallery.vectors_of_rows(np.array([3]))[0].tolist() == made.vectors[name].tolist()
    assert "codes" in gallery.why_no_vectors()


def test_a_crop_is_kept_in_memory_until_it_is_to_be_forgotten(tmp_path: Path) -> None:
    made = sealed_gallery(tmp_path)
    gallery = SealedGallery(made.pair)
    first = gallery.jpeg_at(0)
    for part in (tmp_path / "collection/made/images").iterdir():
        part.unlink()
    assert gallery.jpeg_at(0) == first
    gallery.forget()
    with pytest.raises((OSError, ValueError)):
        gallery.jpeg_at(0)
    with pytest.raises((OSError, ValueError)):
        gallery.read_one()
    with pytest.raises(IndexError, match=r"not in 0\.\.39"):
        gallery.jpeg_at(40)


def test_an_index_that_was_replaced_is_refused(made: Sealed) -> None:
    with pytest.raises(ValueError, match="replaced while the service started"):
        SealedGallery(replace(made.pair, index_fingerprint="0" * 64))


def test_every_crop_is_read_by_its_row_and_its_id(drawn: Pair) -> None:
    gallery = SealedGallery(drawn, num_cached=2)
    stored = {}
    for part in range(sum(name.startswith("images/") for name in read_manifest(drawn.collection).files)):
        table = drawn.collection.read_table(f"images/{part_name(part)}", columns=["image_id", "jpeg"])
        stored |= {row["image_id"]: row["jpeg"] for row in table.to_pylist()}
    ids = drawn.index.read_table(IDS)["image_id"].to_pylist()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(gallery.jpeg_at, range(len(gallery)))) == [stored[image_id] for image_id in ids]
    for row in (-1, len(gallery)):
        with pytest.raises(IndexError, match=f"Row {row} is not in 0..19"):
            gallery.jpeg_at(row)


def test_the_crops_asked_for_last_are_kept_and_no_more(drawn: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []
    gallery = SealedGallery(drawn, num_cached=2)
    ids = drawn.index.read_table(IDS).to_pylist()
    stored = Jpegs.read

    def watched(self: Jpegs, places: list[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        read.extend(places)
        return stored(self, places)

    monkeypatch.setattr(Jpegs, "read", watched)
    for row in (5, 5, 6, 5, 7, 5, 6):
        gallery.jpeg_at(row)
    assert read == [(ids[row]["part"], ids[row]["row_in_part"]) for row in (5, 6, 7, 6)]
    gallery.read_one()
    gallery.read_one()
    assert len(read) == 6, "whether storage answers is asked of storage"


def test_one_thread_answers_a_query(drawn: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, opened = {}, Searcher.open

    def open_with(folder: Folder, num_threads: int, **more: Any) -> Searcher:
        asked["threads"] = num_threads
        return opened(folder, num_threads=num_threads, **more)

    monkeypatch.setattr(sealed.Searcher, "open", open_with)
    SealedGallery(drawn)
    assert asked == {"threads": 1}


def test_minus_one_is_nobody() -> None:
    assert (known(np.int32(-1)), known(np.int32(0)), known(np.int32(7))) == (None, 0, 7)
