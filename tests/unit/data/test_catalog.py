"""The catalogue divides what was stored, and the books of a collection add up."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from retrieval.artifacts.collection import CATALOG_SCHEMA, IMAGE_SCHEMA, detector_of
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import hash_file
from retrieval.data.catalog import parts_digest, plan_collection, seal_collection, write_catalog
from retrieval.data.settings import SplitConfig
from tests.support.photos import touch
from tests.support.splits import assign_splits


def stored(folder: Folder, part: int, rows: list[dict[str, Any]]) -> None:
    """What `ingest_part` leaves of a part, without pixels."""
    usual = {"jpeg": b"", "width": 1, "height": 1, "box": [0.0, 0.0, 1.0, 1.0]} | dict.fromkeys(("split", "attributes"))
    made = [usual | {"content_hash": row["image_id"], "photo": row["image_id"]} | row for row in rows]
    folder.write_table(f"images/part-{part:05}.parquet", pa.Table.from_pylist(made, IMAGE_SCHEMA))


def test_a_catalogue_has_a_row_for_each_stored_photo_and_counts_what_became_of_it(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    folder.write_json("source.json", {})
    names = [f"{person}/{shot}" for person in "abcdefghij" for shot in range(3)]
    rows: list[dict[str, Any]] = [{"image_id": name, "label": name[0]} for name in names]
    rows[4]["content_hash"] = "a/0"  # b/1 is a copy
    rows[7]["attributes"] = [1] * 40
    rows += [{"image_id": "k/0", "label": "k"}, {"image_id": "x", "label": None}]
    stored(folder, 0, rows[:20])
    stored(folder, 1, rows[20:])
    config = SplitConfig(test_fraction=0.3, val_fraction=0.2)
    divided = write_catalog(folder.uri, 2, config)
    catalog = folder.read_table("catalog.parquet")
    assert catalog.schema.equals(CATALOG_SCHEMA)
    listed = catalog.to_pylist()
    assert [(row["image_id"], row["label"]) for row in listed] == [(row["image_id"], row["label"]) for row in rows]
    assert [(row["part"], row["row"]) for row in listed] == [(0, at) for at in range(20)] + [
        (1, at) for at in range(12)
    ]
    hashes = [row.get("content_hash", row["image_id"]) for row in rows]
    assigned = assign_splits([row["image_id"] for row in rows], [row["label"] for row in rows], hashes, config)
    assert [(row["split"], row["reason"], row["duplicate_of"]) for row in listed] == [
        (one.split, one.reason, one.duplicate_of) for one in assigned
    ]
    assert [at for at, row in enumerate(listed) if row["attributes"]] == [7]
    splits = Counter(row["split"] for row in listed)
    assert divided["counts"] == {
        **{name: splits[name] for name in ("train", "val", "query", "gallery")},
        "dropped": 3,
        "duplicates": 1,
        "identities": 10,
        "with_attributes": 1,
        "train_identities": 6,
        "val_identities": 1,
        "query_identities": 3,
    }
    assert divided["dropped"] == {"duplicate": 1, "single-image identity": 1, "unlabelled": 1}
    assert divided["files"] == {name: hash_file(folder, name) for name in ("catalog.parquet", "source.json")}


def test_a_catalogue_honours_the_seed_and_the_source_s_own_split(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    folder.write_json("source.json", {})
    rows = [{"image_id": f"{person}/{shot}", "label": person} for person in "abcdefghij" for shot in range(2)]
    stored(folder, 0, [row | {"split": "query" if row["image_id"] == "c/1" else None} for row in rows])

    def queries(config: SplitConfig) -> set[str]:
        write_catalog(folder.uri, 1, config)
        return {row["image_id"] for row in folder.read_table("catalog.parquet").to_pylist() if row["split"] == "query"}

    assert queries(SplitConfig(seed=1)) != queries(SplitConfig(seed=2))
    assert queries(SplitConfig(test_fraction=0, honour_source=True)) == {"c/1"}


BOOKS: dict[str, Any] = {"photos": 3, "stored": 3, "faces": 3, "refused": {}}
PARTS: list[dict[str, Any]] = [
    BOOKS | {"taken": 5, "rejected": {"empty": 1, "no-face": 1}, "files": {"images/part-00000.parquet": "0"}},
    BOOKS | {"taken": 4, "rejected": {"no-face": 1}, "files": {"images/part-00001.parquet": "1"}},
]
PLAN: dict[str, Any] = {"photos": 9, "inputs": {"source": "of the source"}}
DIVIDED: dict[str, Any] = {
    "counts": {"train": 4, "dropped": 2},
    "dropped": {"duplicate": 2},
    "files": {"catalog.parquet": "c"},
}


def test_a_collection_s_manifest_adds_up_its_parts(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    names = ("images/part-00000.parquet", "images/part-00001.parquet", "catalog.parquet")
    for name in names:
        folder.write_bytes(name, name.encode())
    hashes = {name: hash_file(folder, name) for name in names}
    parts = [part | {"files": {name: hashes[name] for name in part["files"]}} for part in PARTS]
    divided = DIVIDED | {"files": {"catalog.parquet": hashes["catalog.parquet"]}}
    manifest = seal_collection(folder, {"size": 218}, PLAN, parts, divided)
    assert (manifest.kind, manifest.config, manifest.inputs) == (
        "collection",
        {"size": 218},
        {"source": "of the source"},
    )
    assert manifest.counts == {
        "source": 9,
        "stored": 6,
        "rejected": 3,
        "rejected_by_reason": {"empty": 1, "no-face": 2},
        "train": 4,
        "dropped": 2,
    }
    assert [(book["stage"], book["taken"], book["kept"], book["rejected"]) for book in manifest.books] == [
        ("plan", 9, 9, {}),
        ("ingest", 9, 6, {"empty": 1, "no-face": 2}),
        ("split", 6, 4, {"duplicate": 2}),
    ]
    assert manifest.files == hashes


@pytest.mark.parametrize(
    ("plan", "parts", "divided", "stage"),
    [
        ({"photos": 10}, PARTS, DIVIDED, "plan"),  # a part that nobody did
        ({}, PARTS[:1], DIVIDED, "plan"),
        ({}, [PARTS[0], PARTS[1] | {"photos": 2}], DIVIDED, "ingest"),  # a photo neither stored nor rejected
        ({}, [PARTS[0], PARTS[1] | {"rejected": {}}], DIVIDED, "ingest"),
        ({}, PARTS, DIVIDED | {"dropped": {"duplicate": 1}}, "split"),  # dropped without a reason
        ({}, PARTS, DIVIDED | {"counts": {"dropped": 1}}, "split"),
    ],
)
def test_a_photo_that_is_lost_on_the_way_is_seen(
    tmp_path: Path, plan: Any, parts: Any, divided: Any, stage: str
) -> None:
    with pytest.raises(ValueError, match=f"books of stage '{stage}' do not balance"):
        seal_collection(Folder.of(tmp_path), {}, PLAN | plan, parts, divided)
    assert not Folder.of(tmp_path).exists("manifest.json")


def test_with_all_faces_of_a_photo_the_books_are_of_photos_and_of_faces(tmp_path: Path) -> None:
    parts = [
        PARTS[0] | {"stored": 7, "faces": 9, "refused": {"face-too-small": 2}, "files": {}},
        PARTS[1] | {"stored": 4, "faces": 5, "refused": {"face-turned": 1}, "files": {}},
    ]
    config, divided = {"prepare": {"faces": "all"}}, DIVIDED | {"files": {}}
    manifest = seal_collection(Folder.of(tmp_path / "c"), config, PLAN, parts, divided)
    assert [(book["stage"], book["taken"], book["kept"], book["rejected"]) for book in manifest.books] == [
        ("plan", 9, 9, {}),
        ("ingest", 9, 6, {"empty": 1, "no-face": 2}),
        ("faces", 14, 11, {"face-too-small": 2, "face-turned": 1}),
        ("split", 11, 9, {"duplicate": 2}),
    ]
    counts = manifest.counts
    assert (counts["source"], counts["photos"], counts["rejected"], counts["stored"], counts["faces"]) == (
        9,
        6,
        3,
        11,
        14,
    )
    assert counts["faces_refused"] == {"face-too-small": 2, "face-turned": 1}
    with pytest.raises(ValueError, match="books of stage 'faces' do not balance"):
        seal_collection(Folder.of(tmp_path / "d"), config, PLAN, [parts[0] | {"faces": 10}, parts[1]], divided)


def test_faces_of_one_photo_are_no_duplicates_and_the_same_face_of_a_copy_is(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    folder.write_json("source.json", {})
    rows = [
        {"image_id": f"{photo}#{face}", "photo": photo, "face": face, "content_hash": "same", "label": None}
        for photo in ("a.jpg", "copy.jpg")
        for face in (0, 1)
    ]
    stored(folder, 0, rows)
    assert write_catalog(folder.uri, 1, SplitConfig())["counts"]["duplicates"] == 2
    catalog = folder.read_table("catalog.parquet").to_pylist()
    assert [row["duplicate_of"] for row in catalog] == [None, None, "a.jpg#0", "a.jpg#1"]
    assert [(row["photo"], row["face"]) for row in catalog] == [(row["photo"], row["face"]) for row in rows]
    assert [row["split"] for row in catalog] == ["gallery", "gallery", "dropped", "dropped"]


def test_the_detector_s_network_is_part_of_what_a_collection_is_made_from(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "a.jpg")

    def plan(network: bytes | None) -> dict[str, Any]:
        where = {"source": str(tmp_path / "photos"), "layout": "auto", "part_size": None}
        return plan_collection(str(tmp_path / "out"), config={"size": 9}, network=network, **where)

    assert plan(b"yunet")["inputs"]["detector"] == hashlib.sha256(b"yunet").hexdigest()
    assert detector_of(Folder.of(tmp_path / "out")) == b"yunet"
    assert plan(b"yunet")["sealed"] is False
    with pytest.raises(ValueError, match="inputs.detector"):
        plan(b"another")
    with pytest.raises(ValueError, match="inputs.detector"):
        plan(None)
    out = Folder.of(tmp_path / "out")
    stored(out, 0, [{"image_id": "a.jpg", "label": None}])
    assert set(write_catalog(out.uri, 1, SplitConfig())["files"]) == {"catalog.parquet", "source.json", "detector.onnx"}


def test_a_catalogue_of_the_same_parts_is_kept_and_no_part_is_read_for_it(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    folder.write_json("source.json", {})
    stored(folder, 0, [{"image_id": name, "label": name[0]} for name in ("a/1", "a/2", "b/1")])
    parts = [{"files": {"images/part-00000.parquet": "1" * 64, "plan/part-00000.parquet": "2" * 64}}]
    of = parts_digest(parts)
    first = write_catalog(folder.uri, 1, SplitConfig(), of)
    folder.remove("images/part-00000.parquet")
    assert write_catalog(folder.uri, 1, SplitConfig(), of) == first
    assert first["counts"]["identities"] == 1 and first["dropped"] == {"single-image identity": 1}
    parts[0]["files"]["images/part-00000.parquet"] = "3" * 64
    assert parts_digest(parts) != of
    for other in ("", parts_digest(parts)):
        with pytest.raises(FileNotFoundError):
            write_catalog(folder.uri, 1, SplitConfig(), other)
