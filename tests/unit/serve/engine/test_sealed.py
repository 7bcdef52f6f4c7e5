"""The gallery as it was indexed: neighbours, vectors and crops, by image_id and by row."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.collection import Jpegs
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.index import IDS
from retrieval.artifacts.manifest import MANIFEST, read_manifest
from retrieval.artifacts.published import Pair
from retrieval.search.index import Searcher
from serve.engine import sealed
from serve.engine.sealed import SealedGallery
from tests.support.workspace import Workspace, make_workspace, queries_near, stored_vectors, with_index


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("sealed"))


@pytest.fixture(scope="module")
def pair(made: Workspace) -> Pair:
    return Pair.open(str(made.folder))


def test_what_is_found_is_what_the_index_says(made: Workspace, pair: Pair) -> None:
    gallery, vectors = SealedGallery(pair), stored_vectors(made.folder)
    want = Searcher.open(pair.index).search(queries_near(vectors), 5)
    rows = pair.index.read_table(IDS).to_pylist()
    for place, hits in enumerate(gallery.search(queries_near(vectors), 5)):
        assert [hit.row for hit in hits] == want.rows[place].tolist()
        assert [hit.score for hit in hits] == want.scores[place].tolist()
        assert [(hit.image_id, hit.label) for hit in hits] == [
            (rows[hit.row]["image_id"], rows[hit.row]["label"]) for hit in hits
        ]
    assert len(gallery.search(vectors[:1], 10_000)[0]) == len(gallery) == len(vectors)
    assert (gallery.factory, gallery.dim, gallery.vectors) == ("Flat", vectors.shape[1], "index")
    assert gallery.num_identities == len(set(made.labels.values()))


def test_an_index_that_finds_less_answers_with_less(pair: Pair, made: Workspace) -> None:
    gallery = SealedGallery(pair)
    gallery.searcher.shards = gallery.searcher.shards[:1]
    held = set(gallery.searcher.shards[0].rows.tolist())
    (hits,) = gallery.search(stored_vectors(made.folder)[:1], 20)
    assert {hit.row for hit in hits} == held and len(held) < 20


def test_photos_without_a_label_are_nobody(pair: Pair) -> None:
    gallery = SealedGallery(pair)
    gallery.searcher.labels = np.array([None] * (len(gallery) - 3) + ["a", "b", "a"], dtype=object)
    assert gallery.num_identities == 2


def test_vectors_and_rows_by_image_id(made: Workspace, pair: Pair) -> None:
    gallery, vectors = SealedGallery(pair), stored_vectors(made.folder)
    ids = pair.index.read_table(IDS)["image_id"].to_pylist()
    assert [gallery.row_of(image_id) for image_id in ids] == list(range(len(ids)))
    assert np.array_equal(gallery.vectors_of([ids[7], ids[2]]), vectors[[7, 2]])
    for wrong in ("", "img", ids[3] + "x", "zzz", ids[0][:-1]):
        with pytest.raises(KeyError):
            gallery.row_of(wrong)
        with pytest.raises(KeyError):
            gallery.jpeg(wrong)


def test_every_crop_is_read_by_its_row_and_its_id(made: Workspace, pair: Pair) -> None:
    gallery = SealedGallery(pair, num_cached=2)
    stored = {}
    for part in range(sum(name.startswith("images/") for name in read_manifest(pair.collection).files)):
        table = pair.collection.read_table(f"images/{part_name(part)}", columns=["image_id", "jpeg"])
        stored |= {row["image_id"]: row["jpeg"] for row in table.to_pylist()}
    ids = pair.index.read_table(IDS)["image_id"].to_pylist()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(gallery.jpeg_at, range(len(gallery)))) == [stored[image_id] for image_id in ids]
    assert gallery.jpeg(ids[4]) == stored[ids[4]]
    for row in (-1, len(gallery)):
        with pytest.raises(IndexError, match=f"Row {row} is not in 0..19"):
            gallery.jpeg_at(row)


def test_the_crops_asked_for_last_are_kept_and_no_more(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []
    gallery = SealedGallery(pair, num_cached=2)
    ids = pair.index.read_table(IDS).to_pylist()
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


def test_an_index_that_was_replaced_while_the_service_started_is_refused(made: Workspace, tmp_path: Path) -> None:
    pair = Pair.open(str(shutil.copytree(made.folder.path, tmp_path / "w")))
    pair.index.write_json(MANIFEST, {**pair.index.read_json(MANIFEST), "fingerprint": "e" * 64})
    with pytest.raises(ValueError, match="holds index eeeeeeeeeeee, expected"):
        SealedGallery(pair)


def test_one_thread_answers_a_query(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, opened = {}, Searcher.open

    def open_with(folder: Folder, num_threads: int) -> Searcher:
        asked["threads"] = num_threads
        return opened(folder, num_threads=num_threads)

    monkeypatch.setattr(sealed.Searcher, "open", open_with)
    SealedGallery(pair)
    assert asked == {"threads": 1}


def test_an_index_of_codes_without_its_embeddings_says_so(made: Workspace, tmp_path: Path) -> None:
    folder = with_index(made, tmp_path / "w", "SQ8")
    with_embeddings = SealedGallery(Pair.open(str(folder)))
    assert with_embeddings.vectors == "embeddings"
    shutil.rmtree(Path(folder.path) / "embeddings/test")
    gallery = SealedGallery(Pair.open(str(folder)))
    assert gallery.vectors == "none" and "'SQ8'" in gallery.why_no_vectors()
    with pytest.raises(ValueError, match="not in the workspace"):
        gallery.vectors_of([next(iter(made.photos))])
