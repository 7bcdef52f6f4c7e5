"""The catalog and single photos are read as asked; a localised collection holds the wanted photos, once a node."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.artifacts import collection as artifacts_collection
from retrieval.artifacts.collection import (
    CATALOG,
    CATALOG_SCHEMA,
    DETECTOR,
    IMAGE_SCHEMA,
    KIND,
    Jpegs,
    detector_of,
    keep_detector,
    localise,
    read_catalog,
    read_catalog_of_part,
)
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import seal
from tests.support.patterns import local_patterns, make_patterns


def test_localised_rows_are_the_collection_s(tmp_path: Path) -> None:
    local = local_patterns(tmp_path, train=4, val=2, query=2, shots=3)
    folder = Folder.of(tmp_path / "collection")
    stored = {}
    for name in (name for name in folder.list() if name.startswith("images/")):
        stored |= {row["image_id"]: row["jpeg"] for row in folder.read_table(name, ["image_id", "jpeg"]).to_pylist()}
    catalog = {row["image_id"]: row for row in folder.read_table("catalog.parquet").to_pylist()}
    wanted = {image_id for image_id, row in catalog.items() if row["split"] in ("train", "val")}
    assert len(local) == 18 and set(local.image_ids) == wanted
    for row, jpeg in enumerate(local.jpegs(range(len(local)))):
        image_id = local.image_ids[row]
        assert jpeg == stored[image_id]
        assert (local.labels[row], local.splits[row]) == (catalog[image_id]["label"], catalog[image_id]["split"])
    assert set(local.splits[local.rows_of("val")]) == {"val"} and len(local.rows_of("val")) == 6
    assert local.jpegs(np.array([5, 2])) == [local.jpegs([5])[0], local.jpegs([2])[0]]


def test_many_processes_of_a_node_share_one_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_patterns(tmp_path / "collection", train=3, val=1, query=0, shots=2)
    folder, cache = Folder.of(tmp_path / "collection"), tmp_path / "cache"
    copies: list[Path] = []
    copy = artifacts_collection._copy

    def slowly(collection: Folder, path: Path, splits: Sequence[str]) -> None:
        copies.append(path)
        time.sleep(0.05)
        copy(collection, path, splits)

    monkeypatch.setattr(artifacts_collection, "_copy", slowly)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: localise(folder, cache, ("train", "val")), range(4)))
    assert len({local.path for local in found}) == 1 and [len(local) for local in found] == [8] * 4
    assert len(list(cache.glob("*.arrow"))) == 1 and not list(cache.glob("*.tmp-*"))
    assert len(copies) == 1, "the others wait, and then find it"
    written = found[0].path.stat().st_mtime_ns
    assert localise(folder, cache, ("val", "train")).path.stat().st_mtime_ns == written
    assert localise(folder, cache, ("val",)).path != found[0].path


def test_no_such_split_and_no_collection_are_said_in_words(tmp_path: Path) -> None:
    make_patterns(tmp_path / "collection", train=2, val=0, query=0, shots=2)
    with pytest.raises(ValueError, match="has no image in the splits val.*Training needs labelled photos"):
        localise(Folder.of(tmp_path / "collection"), tmp_path / "cache", ("val",))
    with pytest.raises(ValueError, match="No sealed collection"):
        localise(Folder.of(tmp_path / "absent"), tmp_path / "cache", ("val",))


def test_a_catalogue_that_disagrees_with_its_parts_is_refused(tmp_path: Path) -> None:
    make_patterns(tmp_path / "collection", train=2, val=0, query=0, shots=2)
    folder = Folder.of(tmp_path / "collection")
    rows = folder.read_table("catalog.parquet").to_pylist()
    rows[0]["row"], rows[1]["row"] = rows[1]["row"], rows[0]["row"]
    folder.write_table("catalog.parquet", pa.Table.from_pylist(rows, schema=CATALOG_SCHEMA))
    with pytest.raises(ValueError, match="disagree. Ingest again"):
        localise(folder, tmp_path / "cache", ("train",))


def make(folder: Folder, *, parts: int = 3, size: int = 5, group: int = 2, salt: str = "") -> dict[str, bytes]:
    """A sealed collection whose photos are short texts, and those texts by image_id.

    Photo i is in part i // size; every third is of split val, every fifth dropped and without a label.
    """
    rows, texts = [], {}
    for part in range(parts):
        stored = []
        for row in range(size):
            i = part * size + row
            image_id = f"{(7 * i) % (parts * size):03d}.jpg"
            texts[image_id] = f"{salt}photo {i}".encode()
            stored.append({"image_id": image_id, "jpeg": texts[image_id]})
            split = "dropped" if i % 5 == 4 else "val" if i % 3 == 2 else "train"
            label = None if split == "dropped" else f"p{i % 4}"
            place = {"part": part, "row": row, "reason": "single" if split == "dropped" else None}
            rows.append({"image_id": image_id, "label": label, "split": split, **place})
        table = pa.Table.from_pylist(stored, IMAGE_SCHEMA)
        folder.write_table(f"images/{part_name(part)}", table, row_group_size=group)
    folder.write_table(CATALOG, pa.Table.from_pylist(rows, CATALOG_SCHEMA))
    seal(folder, kind=KIND, config={}, inputs={}, counts={"stored": len(rows)})
    return texts


def test_the_catalog_is_read_by_split_sorted_by_name(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    make(folder)
    stored = folder.read_table(CATALOG).to_pylist()
    assert [row["image_id"] for row in stored] != sorted(row["image_id"] for row in stored)
    for splits in (("train",), ("val", "dropped"), ("test",), ()):
        wanted = sorted((row for row in stored if row["split"] in splits), key=lambda row: row["image_id"])
        found = read_catalog(folder, splits)
        assert found.column_names == ["image_id", "label", "part", "row"]
        assert found.to_pylist() == [{name: row[name] for name in found.column_names} for row in wanted]
    everything = read_catalog(folder, columns=CATALOG_SCHEMA.names)
    assert everything.to_pylist() == sorted(stored, key=lambda row: row["image_id"])
    # Neither of the columns that it sorts and chooses by is handed out unasked, and what is asked keeps its order.
    labels = read_catalog(folder, ("val",), ("part", "label"))
    assert labels.column_names == ["part", "label"]
    assert labels.to_pylist() == [
        {"part": row["part"], "label": row["label"]}
        for row in sorted(stored, key=lambda row: row["image_id"])
        if row["split"] == "val"
    ]


def test_of_the_catalog_the_photos_of_one_part_are_read(tmp_path: Path) -> None:
    make_patterns(tmp_path / "collection", train=9, val=2, query=2, shots=3)
    folder, splits = Folder.of(tmp_path / "collection"), ("train", "query")
    whole = read_catalog(folder, splits)
    parts = sorted(set(whole["part"].to_pylist()))
    assert len(parts) > 1
    for part in [*parts, 99]:
        found = read_catalog_of_part(folder, part, splits)
        assert found.to_pylist() == [row for row in whole.to_pylist() if row["part"] == part]


def test_names_are_sorted_by_their_bytes(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    names = ["é", "z", "Z", "a/b", "a.b", "10", "9"]
    folder.write_table(CATALOG, pa.Table.from_pylist([{"image_id": name} for name in names], CATALOG_SCHEMA))
    assert read_catalog(folder)["image_id"].to_pylist() == sorted(names, key=str.encode)


def test_single_photos_are_read_by_place(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    texts = make(folder, group=2)
    places = {(row["part"], row["row"]): texts[row["image_id"]] for row in folder.read_table(CATALOG).to_pylist()}
    jpegs = Jpegs(folder)
    assert jpegs.read(places) == places and len(places) == 15
    for place in places:  # each alone: the first and the last of a row group, the last group's only one
        assert jpegs.read([place]) == {place: places[place]}
    some = [(2, 4), (0, 1), (2, 0), (0, 1)]
    assert jpegs.read(iter(some)) == {place: places[place] for place in some}
    assert jpegs.read([]) == {}
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda place: jpegs.read([place])[place], list(places) * 3)) == list(places.values()) * 3


def test_only_the_row_groups_asked_for_are_read_and_footers_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder.of(tmp_path)
    make(folder, group=2)
    read: list[int] = []
    whole = pq.ParquetFile.read_row_group

    def noted(self: pq.ParquetFile, group: int, **options: Any) -> pa.Table:
        read.append(group)
        assert options == {"columns": ["jpeg"]}
        return whole(self, group, **options)

    footers: list[object] = []
    footer_of = pq.read_metadata
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noted)
    monkeypatch.setattr(pq, "read_metadata", lambda stream: footers.append(stream) or footer_of(stream))
    jpegs = Jpegs(folder)
    jpegs.read([(1, 4), (1, 0), (1, 1)])
    assert read == [0, 2], "rows 0 and 1 lie in one group, row 4 in the third"
    jpegs.read([(1, 2)])
    assert read == [0, 2, 1] and len(footers) == 1


@pytest.mark.parametrize("row", [5, -1])
def test_a_row_that_is_not_there_is_said(tmp_path: Path, row: int) -> None:
    folder = Folder.of(tmp_path)
    make(folder)
    with pytest.raises(ValueError, match=rf"images/part-00001.parquet has no row {row}: the collection is damaged"):
        Jpegs(folder).read([(1, 0), (1, row)])


def test_a_local_copy_is_named_after_its_collection_and_splits(tmp_path: Path) -> None:
    """Two collections share a node's cache: each finds its own photos, whichever came first."""
    cache = tmp_path / "cache"
    folders = [Folder.of(tmp_path / name) for name in ("one", "two")]
    texts = [make(folder, salt=salt) for folder, salt in zip(folders, ("a ", "b "), strict=True)]
    for _ in range(2):
        for folder, known in zip(folders, texts, strict=True):
            for splits in (("train",), ("val",), ("val", "train")):
                local = localise(folder, cache, splits)
                wanted = read_catalog(folder, splits)["image_id"].to_pylist()
                assert sorted(local.image_ids) == wanted
                assert local.jpegs(range(len(local))) == [known[image_id] for image_id in local.image_ids]
    assert len(list(cache.glob("*.arrow"))) == 6


def test_a_local_copy_is_in_the_order_of_storage(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path / "collection")
    make(folder)
    local = localise(folder, tmp_path / "cache", ("train", "val"))
    stored = [row for row in folder.read_table(CATALOG).to_pylist() if row["split"] in ("train", "val")]
    assert list(local.image_ids) == [row["image_id"] for row in stored]
    assert list(local.labels) == [row["label"] for row in stored]
    assert local.rows_of("val").tolist() == [at for at, row in enumerate(stored) if row["split"] == "val"]
    assert local.rows_of("query").tolist() == []


def test_a_copy_that_was_cut_short_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = Folder.of(tmp_path / "collection"), tmp_path / "cache"
    make(folder)

    def die(*_: object) -> None:
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(SystemExit):
            localise(folder, cache, ("train",))
    assert not list(cache.glob("*.arrow"))
    assert len(localise(folder, cache, ("train",))) == len(read_catalog(folder, ("train",)))


def test_a_catalogue_says_of_which_photo_a_row_is_also_one_from_when_each_was_one_row(tmp_path: Path) -> None:
    old, new = Folder.of(tmp_path / "old"), Folder.of(tmp_path / "new")
    rows = [
        {"image_id": "a.jpg#1", "split": "gallery", "photo": "a.jpg", "face": 1},
        {"image_id": "b.jpg", "split": "val"},
    ]
    table = pa.Table.from_pylist(rows, CATALOG_SCHEMA)
    new.write_table(CATALOG, table)
    old.write_table(CATALOG, table.drop_columns(["photo", "face"]))
    columns = ("image_id", "photo", "face")
    assert read_catalog(new, columns=columns).to_pylist() == [
        {"image_id": "a.jpg#1", "photo": "a.jpg", "face": 1},
        {"image_id": "b.jpg", "photo": None, "face": None},
    ]
    assert read_catalog(old, ("gallery",), columns).to_pylist() == [
        {"image_id": "a.jpg#1", "photo": "a.jpg#1", "face": None}
    ]
    assert read_catalog(old, columns=("image_id", "face"))["face"].null_count == 2


def test_the_detector_s_network_goes_along(tmp_path: Path) -> None:
    with_one, without, out = (Folder.of(tmp_path / name) for name in ("a", "b", "out"))
    with_one.write_bytes(DETECTOR, b"network")
    without.write_bytes("other", b"")
    keep_detector(without, out)
    assert detector_of(without) is None and detector_of(out) is None
    keep_detector(with_one, out)
    assert detector_of(with_one) == detector_of(out) == b"network"


def test_a_long_catalog_comes_in_chunks_that_hold_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, names = Folder.of(tmp_path), [f"{(row * 37) % 60:02d}\u00e9.jpg" for row in range(60)]
    rows = [
        {"image_id": name, "label": None, "split": "gallery", "part": 0, "row": at} for at, name in enumerate(names)
    ]
    folder.write_table(CATALOG, pa.Table.from_pylist(rows, schema=CATALOG_SCHEMA))
    whole = read_catalog(folder, columns=CATALOG_SCHEMA.names)
    monkeypatch.setattr(artifacts_collection, "_CHUNK", 7)
    cut = read_catalog(folder, columns=CATALOG_SCHEMA.names)
    assert cut.equals(whole) and cut.schema == whole.schema == CATALOG_SCHEMA
    assert cut["image_id"].num_chunks == 9 and cut["image_id"].to_pylist() == sorted(names)
    assert read_catalog(folder, ("query",)).num_rows == 0
