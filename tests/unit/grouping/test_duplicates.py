"""The same picture more than once: thumbnails, pairs that are asked, and chains of copies that become one picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.grouping import duplicates
from retrieval.grouping.links import LINK_SCHEMA, links_name
from retrieval.images.likeness import SIDE, likeness, thumbnail
from tests.support.grouped import Photo, make_folders, people, texture


def compared(out: Folder, *pairs: tuple[int, int, float]) -> None:
    columns = dict(zip(("low", "high", "likeness"), map(list, zip(*pairs)))) if pairs else {}
    table = pa.table(columns, schema=duplicates.COMPARED_SCHEMA) if pairs else duplicates.COMPARED_SCHEMA.empty_table()
    out.write_table(duplicates.compared_name(0), table)


def test_copies_of_copies_are_of_the_first(tmp_path: Path) -> None:
    out = Folder.of(tmp_path)
    compared(out, (1, 4, 0.98), (2, 3, 0.99), (4, 5, 0.995), (3, 5, 0.97), (6, 8, 1.0))
    found = duplicates.read_copies(out, 1, 9)
    assert dict(zip(found.row.tolist(), found.of.tolist())) == {2: 1, 3: 1, 4: 1, 5: 1, 8: 6}
    assert found.likeness == pytest.approx(np.array([0.99, 0.99, 0.995, 0.995, 1.0]))


def test_a_long_chain_ends_at_its_first(tmp_path: Path) -> None:
    out = Folder.of(tmp_path)
    order = np.random.default_rng(0).permutation(60)
    compared(out, *((min(a, b), max(a, b), 1.0) for a, b in zip(order.tolist(), order.tolist()[1:])))
    found = duplicates.read_copies(out, 1, 60)
    assert found.of.tolist() == [0] * 59


@pytest.mark.parametrize("blocks", [0, 1])
def test_nothing_is_there_twice(tmp_path: Path, blocks: int) -> None:
    compared(Folder.of(tmp_path))
    assert len(duplicates.read_copies(Folder.of(tmp_path), blocks, 5).row) == 0


def test_pairs_that_are_linked_are_compared_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_PAIRS_AT_ONCE", 4)
    photos = sorted(people(3, 3), key=lambda one: one.image_id)
    same = Photo(image_id="z copy.jpg", label="p0", vector=photos[4].vector, pixels=photos[4].pixels // 2)
    where, out = make_folders(tmp_path, [*photos, same], part_size=4), Folder.of(tmp_path / "out")
    for part in range(3):
        done = duplicates.write_thumbnails(where["index"], where["collection"], out, part, thumbnail)
        assert done["taken"] == (4, 4, 2)[part]
    low, high = np.triu_indices(10, 1)
    links = {"row": low.astype(np.int32), "neighbour": high.astype(np.int32), "score": np.ones(45, np.float32)}
    out.write_table(links_name(0), pa.table(links, schema=LINK_SCHEMA))
    asked = duplicates.write_pairs(where["index"], out, [links_name(0)], nearest=9)
    assert asked == {"pairs": 45, "blocks": 12}
    done = [duplicates.compare(out, block, SIDE, likeness, 0.97) for block in range(12)]
    assert sum(row["taken"] for row in done) == 45
    assert sum(row["found"] for row in done) == 1
    found = duplicates.read_copies(out, 12, 10)
    assert (found.row.tolist(), found.of.tolist()) == ([9], [4])
    duplicates.remove_thumbnails(out)
    assert list(out.list()) == [links_name(0)]


def test_thumbnails_are_those_of_the_pair_in_whichever_part_they_lie(tmp_path: Path) -> None:
    photos = sorted(people(3, 3), key=lambda one: one.image_id)[::-1]
    photos[0] = dataclasses.replace(photos[0], pixels=photos[-1].pixels)
    where, out = make_folders(tmp_path, photos, part_size=3), Folder.of(tmp_path / "out")
    for part in range(3):
        duplicates.write_thumbnails(where["index"], where["collection"], out, part, thumbnail)
    pair = {"row": [0], "neighbour": [8], "score": [1.0]}
    out.write_table(links_name(0), pa.table(pair, schema=LINK_SCHEMA))
    assert duplicates.write_pairs(where["index"], out, [links_name(0)], nearest=1) == {"pairs": 1, "blocks": 1}
    assert duplicates.compare(out, 0, SIDE, likeness, 0.97) == {"taken": 1, "found": 1}


def test_thumbnails_of_photos_that_are_not_indexed_are_not_made(tmp_path: Path) -> None:
    photos = [
        Photo(image_id=f"{n}", label=None, vector=np.eye(32, dtype=np.float32)[n], pixels=texture(n)) for n in range(3)
    ]
    photos[1] = Photo(image_id="1", label=None, vector=photos[1].vector, pixels=photos[1].pixels, copy_of="0")
    where, out = make_folders(tmp_path, photos), Folder.of(tmp_path / "out")
    told: list[tuple[str, int, int]] = []
    done = duplicates.write_thumbnails(
        where["index"], where["collection"], out, 0, thumbnail, lambda *s: told.append(s)
    )
    assert done["taken"] == 2
    images = np.frombuffer(out.read_bytes(duplicates.thumbnails_name(0)), np.uint8).reshape(2, SIDE, SIDE)
    stored = where["collection"].read_table("images/part-00000.parquet", ["image_id", "jpeg"]).to_pylist()
    jpegs = {row["image_id"]: row["jpeg"] for row in stored}
    assert [image.tolist() for image in images] == [thumbnail(jpegs[name]).tolist() for name in ("0", "2")]


def test_few_parts_lie_in_a_block_and_little_is_read_that_nobody_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "_PAIRS_AT_ONCE", 3)
    photos = sorted(people(4, 3), key=lambda one: one.image_id)
    where, out = make_folders(tmp_path, photos, part_size=3), Folder.of(tmp_path / "out")
    low, high = [0, 1, 2, 3, 6, 9], [11, 4, 10, 5, 7, 11]
    links = {"row": pa.array(low, pa.int32()), "neighbour": high, "score": [1.0] * 6}
    out.write_table(links_name(0), pa.table(links, schema=LINK_SCHEMA))
    assert duplicates.write_pairs(where["index"], out, [links_name(0)], nearest=1) == {"pairs": 6, "blocks": 2}
    tables = [out.read_table(duplicates.pairs_name(block)).to_pydict() for block in (0, 1)]
    assert [set(table["low_part"]) for table in tables] == [{0}, {1, 2, 3}]
    places = zip(*(tables[0][name] for name in ("low", "high", "high_part", "high_place")))
    assert list(places) == [(1, 4, 1, 1), (0, 11, 3, 2), (2, 10, 3, 1)]
    asked: list[tuple[str, int, int]] = []
    for part in range(4):
        duplicates.write_thumbnails(where["index"], where["collection"], out, part, thumbnail)
    read = Folder.read_range
    monkeypatch.setattr(Folder, "read_range", lambda of, *what: asked.append(what) or read(of, *what))
    duplicates.compare(out, 1, SIDE, likeness, 0.97)  # 3 and 5, 6 and 7, 9 and 11
    size = SIDE * SIDE
    ranges = [(1, 0, 3), (2, 0, 2), (3, 0, 3)]
    assert sorted(asked) == [
        (duplicates.thumbnails_name(part), start * size, num * size) for part, start, num in ranges
    ]


def test_of_thumbnails_that_are_read_together_those_of_the_pair_are_compared(tmp_path: Path) -> None:
    photos = sorted(people(3, 2), key=lambda one: one.image_id)
    photos[4] = dataclasses.replace(photos[4], pixels=photos[1].pixels)
    where, out = make_folders(tmp_path, photos), Folder.of(tmp_path / "out")
    duplicates.write_thumbnails(where["index"], where["collection"], out, 0, thumbnail)
    links = {"row": [1], "neighbour": [4], "score": [1.0]}
    out.write_table(links_name(0), pa.table(links, schema=LINK_SCHEMA))
    duplicates.write_pairs(where["index"], out, [links_name(0)], nearest=1)
    assert duplicates.compare(out, 0, SIDE, likeness, 0.97) == {"taken": 1, "found": 1}


def test_thumbnails_that_are_missing_are_said_to_be(tmp_path: Path) -> None:
    photos = people(1, 3)
    where, out = make_folders(tmp_path, photos), Folder.of(tmp_path / "out")
    out.write_bytes(duplicates.thumbnails_name(0), bytes(2 * SIDE * SIDE + 5))
    links = {"row": [0], "neighbour": [2], "score": [1.0]}
    out.write_table(links_name(0), pa.table(links, schema=LINK_SCHEMA))
    duplicates.write_pairs(where["index"], out, [links_name(0)], nearest=1)
    with pytest.raises(ValueError, match="has no thumbnail 2. Group again, into a new folder"):
        duplicates.compare(out, 0, SIDE, likeness, 0.97)
