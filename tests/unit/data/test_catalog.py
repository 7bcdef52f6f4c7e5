"""The plan of a collection is made once and refuses another source; the catalogue divides what was stored."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from retrieval.artifacts.collection import CATALOG_SCHEMA, IMAGE_SCHEMA, detector_of
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import hash_file, plain
from retrieval.artifacts.manifest import seal
from retrieval.data.catalog import plan_collection, seal_collection, source_fingerprint, write_catalog
from retrieval.data.ingestion import PLAN_SCHEMA
from retrieval.data.layouts.celeba import ATTRIBUTES
from retrieval.data.settings import SplitConfig
from retrieval.data.splits import assign_splits
from retrieval.images.settings import PrepareConfig
from tests.support.photos import touch

HAAR = PrepareConfig(detector="haar")
NAMES = ("ann/1.jpg", "ann/2 copy of 1.jpg", "b\u00f6 lee/\u5199\u771f 1.gif", "b\u00f6 lee/2.jpg", "cy/only.jpg")
FACE = dict.fromkeys(("x1", "y1", "x2", "y2"), "5") | dict.fromkeys(ATTRIBUTES, "1")


def planned(source: Path, out: Path, part_size: int | None = 5) -> dict[str, Any]:
    config = {"prepare": plain(HAAR), "part_size": part_size}
    return plan_collection(str(out), source=str(source), layout="auto", config=config, part_size=part_size)


def test_the_plan_is_read_back_and_a_changed_source_refused(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    touch(photos, *NAMES)
    plan = planned(photos, tmp_path / "out")
    assert planned(photos, tmp_path / "out") == plan
    (photos / "ann" / "new.jpg").write_bytes(b"x")
    (photos / "cy" / "only.jpg").unlink()
    (photos / "ann" / "1.jpg").write_bytes(b"other")
    with pytest.raises(
        ValueError, match=r"inputs.source.*1 new \(first: ann/new.jpg\); 1 gone .*only.jpg\); 1 changed"
    ):
        planned(photos, tmp_path / "out")


def test_fingerprint_names_content_not_place(tmp_path: Path) -> None:
    for place in ("here", "there"):
        touch(tmp_path / place, *NAMES)
    assert source_fingerprint(str(tmp_path / "here")) == source_fingerprint(str(tmp_path / "there"))
    assert source_fingerprint(str(tmp_path / "here"), "lfw") != source_fingerprint(str(tmp_path / "here"))


@pytest.mark.parametrize(("photos", "parts"), [(1, 1), (16, 1), (17, 2), (256, 16), (4096, 16), (4097, 17)])
def test_number_of_parts_follows_the_number_of_photos(tmp_path: Path, photos: int, parts: int) -> None:
    table = tmp_path / "photos.csv"
    (tmp_path / "0.jpg").write_bytes(b"x")
    table.write_text("path\n" + "".join(f"{number}.jpg\n" for number in range(photos)))
    assert planned(table, tmp_path / "out", None)["parts"] == parts


@pytest.mark.parametrize("where", ["below a file", "/proc/no-folder-can-be-made-here"])
def test_an_unwritable_place_is_refused_in_words(tmp_path: Path, where: str) -> None:
    """Both fail for root too, for whom permission bits count for nothing."""
    touch(tmp_path / "photos", *NAMES)
    (tmp_path / "file").write_bytes(b"")
    out = tmp_path / "file" / "out" if where == "below a file" else Path(where)
    with pytest.raises(ValueError, match=r"Cannot write to .*Name a folder that can be made"):
        planned(tmp_path / "photos", out)


def table(folder: Path, **changes: str) -> str:
    """A manifest of two photos, the second of which is as `changes` say. Returns its path."""
    touch(folder, "1.jpg", "2.jpg", "other.jpg")
    one = {"path": "1.jpg", "image_id": "one", "label": "ann", "split": "train", **FACE}
    two = one | {"path": "2.jpg", "image_id": "two"} | changes
    rows = [",".join(one), ",".join(one.values()), ",".join(two[name] for name in one)]
    (folder / "t.csv").write_text("\n".join(rows) + "\n")
    return str(folder / "t.csv")


@pytest.mark.parametrize(
    "changes",
    [
        {"image_id": "three"},
        {"path": "other.jpg"},  # another size too
        {"label": "bo"},
        {"label": ""},
        {"split": "query"},
        {"x1": "4"},
        {"x1": ""},
        {"Smiling": "-1"},
        {"Smiling": ""},
    ],
)
def test_a_fingerprint_is_of_all_that_is_known_of_each_photo(tmp_path: Path, changes: dict[str, str]) -> None:
    before = source_fingerprint(table(tmp_path))
    assert source_fingerprint(table(tmp_path)) == before
    assert source_fingerprint(table(tmp_path, **changes)) != before


def test_a_fingerprint_is_of_each_photo_s_size_and_place(tmp_path: Path) -> None:
    before = source_fingerprint(table(tmp_path))
    (tmp_path / "2.jpg").write_bytes(b"another length")
    changed = source_fingerprint(str(tmp_path / "t.csv"))
    assert changed != before
    (tmp_path / "5.jpg").write_bytes(b"another length")
    assert source_fingerprint(table(tmp_path, path="5.jpg")) != changed


def test_a_plan_says_which_photos_each_part_is_made_of(tmp_path: Path) -> None:
    touch(tmp_path / "photos", *(f"{name}.jpg" for name in "gfedcba"))
    plan = planned(tmp_path / "photos", tmp_path / "out", 3)
    out = Folder.of(tmp_path / "out")
    parts = [out.read_table(f"plan/part-{part:05}.parquet") for part in range(plan["parts"])]
    assert [part["image_id"].to_pylist() for part in parts] == [
        ["a.jpg", "b.jpg", "c.jpg"],
        ["d.jpg", "e.jpg", "f.jpg"],
        ["g.jpg"],
    ]
    assert all(part.schema.equals(PLAN_SCHEMA) for part in parts)
    assert parts[0].to_pylist()[0] == {"image_id": "a.jpg", "uri": "a.jpg", "size": 5} | dict.fromkeys(
        ("label", "split", "attributes", "box")
    )
    written = out.read_json("source.json")
    assert (written["parts"], written["part_size"], written["photos"], written["layout"]) == (3, 3, 7, "folder")
    assert written["fingerprint"] == plan["inputs"]["source"] == source_fingerprint(str(tmp_path / "photos"))
    assert plan["root"] == Folder.of(tmp_path / "photos").uri


@pytest.mark.parametrize(("photos", "size"), [(1, 16), (257, 17), (4096, 256), (5000, 256)])
def test_a_part_has_sixteen_to_256_photos_where_nobody_says(tmp_path: Path, photos: int, size: int) -> None:
    (tmp_path / "0.jpg").write_bytes(b"x")
    (tmp_path / "t.csv").write_text("path\n" + "".join(f"{number}.jpg\n" for number in range(photos)))
    planned(tmp_path / "t.csv", tmp_path / "out", None)
    assert Folder.of(tmp_path / "out").read_json("source.json")["part_size"] == size


def test_a_plan_that_was_cut_short_is_made_again_and_a_whole_one_is_kept(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "a.jpg", "b.jpg")
    planned(tmp_path / "photos", tmp_path / "out", 1)
    out = Folder.of(tmp_path / "out")
    out.remove("source.json")
    out.remove("plan/part-00001.parquet")
    assert planned(tmp_path / "photos", tmp_path / "out", 1)["parts"] == 2
    assert out.exists("plan/part-00001.parquet")
    out.remove("plan/part-00001.parquet")
    planned(tmp_path / "photos", tmp_path / "out", 1)
    assert not out.exists("plan/part-00001.parquet")  # source.json said that the plan is whole


def test_another_place_or_pace_goes_on_and_another_setting_does_not(tmp_path: Path) -> None:
    for place in ("here", "there"):
        touch(tmp_path / place, "a.jpg", "b.jpg")

    def plan(place: str, **config: Any) -> dict[str, Any]:
        settings = {"source": place, "out": "x", "cpus_per_part": 1.0, "size": 218} | config
        out, source = str(tmp_path / "out"), str(tmp_path / place)
        return plan_collection(out, source=source, layout="auto", config=settings, part_size=None)

    first = plan("here")
    assert plan("there", out="y", cpus_per_part=0.5) == first | {"root": Folder.of(tmp_path / "there").uri}
    with pytest.raises(ValueError, match="config.size"):
        plan("here", size=96)
    assert first["sealed"] is False
    settings = {"source": "here", "out": "x", "cpus_per_part": 1.0, "size": 218}
    inputs = first["inputs"]
    seal(Folder.of(tmp_path / "out"), kind="collection", config=settings, inputs=inputs, counts={})
    assert plan("there", out="z") == first | {"sealed": True, "root": Folder.of(tmp_path / "there").uri}


def test_what_changed_in_a_source_is_told(tmp_path: Path) -> None:
    planned(Path(table(tmp_path)), tmp_path / "out", None)
    with pytest.raises(ValueError, match=r"The source differs from the one planned there: 1 changed \(first: two\)\."):
        planned(Path(table(tmp_path, label="bo")), tmp_path / "out", None)
    with pytest.raises(ValueError, match=r"planned there: attributes, splits or boxes\."):
        planned(Path(table(tmp_path, split="query")), tmp_path / "out", None)
    with pytest.raises(ValueError, match=r"planned there: 1 new \(first: 3\); 1 gone \(first: two\)\."):
        planned(Path(table(tmp_path, image_id="3")), tmp_path / "out", None)
    with pytest.raises(ValueError) as caught:
        planned(Path(table(tmp_path)), tmp_path / "out", 7)
    assert "config.part_size" in str(caught.value) and "source differs" not in str(caught.value)


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
