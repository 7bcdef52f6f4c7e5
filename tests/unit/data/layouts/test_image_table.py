"""Photos in Parquet: listed without their bytes, read by row group; and tables with flaws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.data import reading
from retrieval.data.layouts import image_table
from retrieval.data.listing import Source, list_source
from retrieval.images.pixels import BadImage
from tests.support.packed import write_photos

PHOTOS = [bytes([65 + number]) * (900 + 10 * number) for number in range(10)]


def bytes_of(source: Source) -> list[bytes]:
    """Of all photos, read as a part reads them."""
    rows = [{"uri": photo.uri, "size": photo.size} for photo in source.photos]
    with reading.Ahead(source.root, rows) as ahead:
        return [ahead.read(at) for at in range(len(rows))]


def test_tables_of_photos_are_told_by_what_is_there_and_each_row_has_its_own_bytes(tmp_path: Path) -> None:
    write_photos(tmp_path / "data" / "train-0.parquet", PHOTOS, label=[number // 2 for number in range(10)])
    write_photos(tmp_path / "data" / "train-1.parquet", PHOTOS[:3], label=["Ann", "", None], split=["query"] * 3)
    (tmp_path / "README.md").write_text("photos")
    source = list_source(str(tmp_path))
    assert (source.report.layout, source.report.guessed, source.report.notes) == ("parquet", True, ())
    assert [photo.image_id for photo in source.photos] == [
        *(f"data/train-0.parquet/{row:09}" for row in range(10)),
        *(f"data/train-1.parquet/{row:09}" for row in range(3)),
    ]
    assert [photo.label for photo in source.photos] == [*"0011223344", "Ann", None, None]
    assert [photo.split for photo in source.photos] == [None] * 10 + ["query"] * 3
    assert bytes_of(source) == PHOTOS + PHOTOS[:3]
    alone = list_source(str(tmp_path / "data" / "train-1.parquet"))
    assert (alone.report.layout, alone.photos[0].image_id) == ("parquet", "train-1.parquet/000000000")
    assert bytes_of(alone) == PHOTOS[:3]


def test_photos_may_be_plain_bytes_and_labels_numbers_that_have_names(tmp_path: Path) -> None:
    told = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    table = pa.table({"label": [1, 0, 5], "jpg": PHOTOS[:3], "caption": ["a", "b", "c"]})
    pq.write_table(table.replace_schema_metadata({b"huggingface": json.dumps(told).encode()}), tmp_path / "a.parquet")
    source = list_source(str(tmp_path))
    assert [photo.label for photo in source.photos] == ["dog", "cat", "5"]
    assert source.report.notes == ("a.parquet has columns that are not used: caption.",)
    assert bytes_of(source) == PHOTOS[:3]


@pytest.mark.parametrize("told", [b"no JSON", b"[]", b'{"info": {"features": {"label": {"names": 3}}}}', b"{}"])
def test_what_a_file_says_of_its_labels_may_be_nothing(told: bytes, tmp_path: Path) -> None:
    write_photos(tmp_path / "a.parquet", PHOTOS[:2], label=[1, 0], about={b"huggingface": told})
    assert [photo.label for photo in list_source(str(tmp_path)).photos] == ["1", "0"]


def test_a_table_of_paths_stays_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PHOTOS[0])
    pq.write_table(pa.table({"path": ["a.jpg"], "thumbnail": [b"x"]}), tmp_path / "list.parquet")
    report = list_source(str(tmp_path / "list.parquet")).report
    assert (report.layout, report.photos) == ("manifest", 1)
    assert list_source(str(tmp_path)).report.layout == "folder"  # there are photos beside it


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": [1]}, "no column with the bytes of photos; its columns: label"),
        ({"left": [b"x"], "right": [b"x"]}, r"several columns with bytes \(left, right\)"),
        ({"image": ["a.jpg"]}, "no column with the bytes"),
    ],
)
def test_a_table_must_say_where_its_photos_are(columns: dict[str, Any], said: str, tmp_path: Path) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=said):
        list_source(str(tmp_path))
    named = pa.table({**columns, "image": [b"y"]})
    pq.write_table(named, tmp_path / "a.parquet")
    assert bytes_of(list_source(str(tmp_path))) == [b"y"]


def test_a_damaged_file_ends_the_listing_and_a_damaged_group_refuses_its_photos(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    noise = [np.random.default_rng(number).bytes(3000) for number in range(8)]
    write_photos(file, noise)
    source, whole = list_source(str(tmp_path)), file.read_bytes()
    at = whole.index(noise[4][:50])
    file.write_bytes(whole[: at - 60] + bytes(60) + whole[at:])  # the head of the second group's page
    rows = [{"uri": photo.uri, "size": photo.size} for photo in source.photos]
    with reading.Ahead(source.root, rows) as ahead:
        assert [ahead.read(number) for number in range(4)] == noise[:4]
        with pytest.raises(BadImage, match="not-readable: row group 1 of a.parquet"):
            ahead.read(4)
    file.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="cannot be read as Parquet: .* Fetch it again, or take it out"):
        list_source(str(tmp_path), "parquet")
    file.unlink()
    with pytest.raises(ConnectionError, match="holds nothing any more"):
        reading.read(source.root, rows[0]["uri"], 1)


def test_rows_without_a_photo_are_empty_ones(tmp_path: Path) -> None:
    write_photos(tmp_path / "a.parquet", [PHOTOS[0], None, PHOTOS[2]])
    assert bytes_of(list_source(str(tmp_path))) == [PHOTOS[0], b"", PHOTOS[2]]
    pq.write_table(pa.table({"image": pa.array([None, b"x"], pa.binary())}), tmp_path / "a.parquet")
    assert bytes_of(list_source(str(tmp_path))) == [b"", b"x"]


def test_groups_that_are_too_large_to_be_held_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path / "a.parquet", PHOTOS[:8], rows=4)
    monkeypatch.setattr(image_table, "_MAX_GROUP", 6000)
    assert len(list_source(str(tmp_path)).photos) == 8
    write_photos(tmp_path / "a.parquet", [bytes([number]) * 4000 for number in range(8)], rows=8)  # it shrinks well
    with pytest.raises(ValueError, match=r"a row group with .* Write it again with smaller ones"):
        list_source(str(tmp_path))


def test_photos_are_not_read_to_list_them_and_a_group_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = [np.random.default_rng(number).bytes(1 << 18) for number in range(24)]
    write_photos(tmp_path / "a.parquet", noise, rows=8, label=[str(number) for number in range(24)])

    def read_so_far() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    list_source(str(tmp_path))  # what is imported on the way is read once
    before = read_so_far()
    source = list_source(str(tmp_path))
    assert read_so_far() - before < 1 << 20  # of 6 MiB; footers are read in pieces of 64 KiB
    groups, inner = [], image_table.read_rows
    monkeypatch.setattr(image_table, "read_rows", lambda root, uris: groups.append(len(uris)) or inner(root, uris))
    assert bytes_of(source) == noise
    assert groups == [8, 8, 8]


def test_tables_in_an_object_store_are_read_like_those_on_a_disk(bucket: Folder, tmp_path: Path) -> None:
    write_photos(tmp_path / "a.parquet", PHOTOS, label=[str(number) for number in range(10)])
    bucket.write_bytes("a.parquet", (tmp_path / "a.parquet").read_bytes())
    here, there = list_source(str(tmp_path)), list_source(bucket)
    assert here.photos == there.photos
    assert bytes_of(there) == bytes_of(here) == PHOTOS


@pytest.mark.parametrize("uri", ["parquet://1/a.parquet", "parquet://x/1/a", "parquet://1/x/a", "parquet://1/1/", "a"])
def test_what_names_no_row_is_said(uri: str) -> None:
    with pytest.raises(ValueError, match="is no photo in a table. Expected parquet://GROUP/ROW/PATH"):
        image_table.place(uri)
