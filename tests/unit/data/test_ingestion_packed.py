"""Photos that are packed make the collection that the same photos make as files, and its books balance."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Manifest
from retrieval.data.catalog import parts_digest, plan_collection, seal_collection, write_catalog
from retrieval.data.ingestion import ingest_part, try_photos
from retrieval.data.listing import list_source
from retrieval.data.settings import Layout, SplitConfig
from retrieval.images.pixels import encode_jpeg
from retrieval.images.settings import PrepareConfig
from tests.support.packed import tar_of, write_photos
from tests.support.photos import portrait

pytestmark = pytest.mark.usefixtures("one_thread")

FIT = PrepareConfig(crop="fit", size=64)
GOOD = [encode_jpeg(portrait(number)) for number in range(8)]
FLAWED = [*GOOD[:3], b"no photo", *GOOD[3:6], GOOD[6][:-300], GOOD[7], b""]
REASONS = {"empty": 1, "not-an-image": 1, "truncated": 1}


def made(source: Folder, out: Folder, layout: Layout = "auto", part_size: int = 4) -> tuple[Manifest, list[Any]]:
    """The collection, sealed, and the rows of its photos."""
    config = {"prepare": {"faces": "best"}, "part_size": part_size}
    plan = plan_collection(out.uri, source=source.uri, layout=layout, config=config, part_size=part_size)
    root = Folder(plan["root"])
    parts = [dataclasses.asdict(ingest_part(out, part, root, FIT)) for part in range(plan["parts"])]
    assert try_photos(out, 0, root, FIT, [1]) == [photo.image_id for photo in list_source(source, layout).photos[:4]]
    divided = write_catalog(out.uri, plan["parts"], SplitConfig(keep_singles=True), parts_digest(parts))
    manifest = seal_collection(out, config, plan, parts, divided)
    tables = (out.read_table(f"images/part-{part:05}.parquet") for part in range(plan["parts"]))
    return manifest, [row for table in tables for row in table.to_pylist()]


def compared(rows: list[Any]) -> list[tuple[Any, ...]]:
    return sorted((row["content_hash"], row["jpeg"], row["label"], row["width"]) for row in rows)


def test_tars_and_tables_give_what_files_give(tmp_path: Path, bucket: Folder) -> None:
    for number, photo in enumerate(FLAWED):
        (tmp_path / "files" / f"p{number // 5}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / f"p{number // 5}" / f"{number}.jpg").write_bytes(photo)
    members = [(f"{number}.jpg", photo) for number, photo in enumerate(FLAWED)]
    labels = [(f"{number}.cls", b"p%d" % (number // 5)) for number in range(len(FLAWED))]
    both = [pair for beside in zip(members, labels, strict=True) for pair in beside]
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "0.tar").write_bytes(tar_of(both[:12]))
    (tmp_path / "tars" / "1.tar").write_bytes(tar_of(both[12:]))
    label = [f"p{number // 5}" for number in range(len(FLAWED))]
    write_photos(tmp_path / "tables" / "0.parquet", FLAWED, rows=3, label=label)
    for name in ("tars/0.tar", "tars/1.tar", "tables/0.parquet"):
        bucket.write_bytes(name, (tmp_path / name).read_bytes())
    wanted, files = made(Folder.of(tmp_path / "files"), Folder.of(tmp_path / "out"), "lfw")
    assert wanted.counts["rejected_by_reason"] == REASONS
    for place in (Folder.of(tmp_path), bucket):
        for kind in ("tars", "tables"):
            manifest, rows = made(place / kind, place / f"out-{kind}")
            assert compared(rows) == compared(files), kind
            assert manifest.counts == wanted.counts and manifest.books == wanted.books
            assert plan_again(place, kind)["sealed"]


def plan_again(place: Folder, kind: str) -> dict[str, Any]:
    config = {"prepare": {"faces": "best"}, "part_size": 4}
    out = (place / f"out-{kind}").uri
    return plan_collection(out, source=(place / kind).uri, layout="auto", config=config, part_size=4)


def test_a_tar_that_changed_is_another_source(tmp_path: Path) -> None:
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "0.tar").write_bytes(tar_of([("a.jpg", GOOD[0]), ("b.jpg", GOOD[1])]))
    made(Folder.of(tmp_path / "tars"), Folder.of(tmp_path / "out-tars"))
    (tmp_path / "tars" / "0.tar").write_bytes(tar_of([("a.jpg", GOOD[0]), ("b.jpg", GOOD[2])]))
    with pytest.raises(ValueError, match=r"1 changed \(first: 0.tar/b.jpg\)"):
        plan_again(Folder.of(tmp_path), "tars")
