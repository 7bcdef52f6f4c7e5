"""The gallery as it was indexed: refusals, what is kept in memory, and that nothing changes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval.live.sealed import SealedGallery, known
from tests.support.gallery import Sealed, sealed_gallery
from tests.support.vectors import clustered


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    return sealed_gallery(tmp_path_factory.mktemp("sealed"), factory="SQ8")


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


def test_minus_one_is_nobody() -> None:
    assert (known(np.int32(-1)), known(np.int32(0)), known(np.int32(7))) == (None, 0, 7)
