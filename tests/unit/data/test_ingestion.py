"""A part's books balance whatever the photographs are, and a part done again gives the same bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.artifacts.collection import IMAGE_SCHEMA, REJECTED_SCHEMA
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import hash_file, plain
from retrieval.data import ingestion, reading
from retrieval.data.catalog import plan_collection, write_catalog
from retrieval.data.ingestion import PLAN_SCHEMA, ingest_part
from retrieval.data.settings import SplitConfig
from retrieval.images.pixels import BadImage, encode_jpeg, resize
from retrieval.images.preparation import prepare
from retrieval.images.settings import PrepareConfig
from tests.support.photos import awkward, portrait, yunet

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).resolve().parents[3]
HAAR = PrepareConfig(detector="haar")
FIT = PrepareConfig(crop="fit", size=100)


def planned(source: Path, out: Path, part_size: int | None = 5) -> dict[str, Any]:
    config = {"prepare": plain(HAAR), "part_size": part_size}
    return plan_collection(str(out), source=str(source), layout="lfw", config=config, part_size=part_size)


def test_awkward_photographs_are_stored_or_rejected_with_their_reason(tmp_path: Path) -> None:
    expected = awkward(tmp_path / "photos")
    plan = planned(tmp_path / "photos", tmp_path / "out")
    assert (plan["parts"], plan["photos"], plan["sealed"]) == (3, 14, False)
    out, source = Folder.of(tmp_path / "out"), Folder(plan["root"])
    found: dict[str, str | None] = {}
    for part in range(plan["parts"]):
        result = ingest_part(out, part, source, HAAR)
        stored = out.read_table(f"images/part-{part:05}.parquet")
        rejected = out.read_table(f"rejected/part-{part:05}.parquet")
        assert stored.schema.equals(IMAGE_SCHEMA)
        assert rejected.schema.equals(REJECTED_SCHEMA)
        assert result.taken == stored.num_rows + rejected.num_rows == result.stored + sum(result.rejected.values())
        found |= dict.fromkeys(stored.column("image_id").to_pylist())
        found |= {row["image_id"]: row["reason"] for row in rejected.to_pylist()}
        assert all(row["detail"] and row["stage"] in ("read", "decode", "detect") for row in rejected.to_pylist())
    assert found == expected
    divided = write_catalog(out.uri, plan["parts"], SplitConfig())
    assert divided["dropped"] == {"duplicate": 1, "single-image identity": 1}
    catalog = out.read_table("catalog.parquet").to_pylist()
    assert [row["image_id"] for row in catalog] == sorted(name for name, reason in expected.items() if reason is None)
    for row in catalog:
        there = out.read_table(f"images/part-{row['part']:05}.parquet").column("image_id")[row["row"]].as_py()
        assert there == row["image_id"]
    (copy,) = [row for row in catalog if row["duplicate_of"]]
    assert (copy["image_id"], copy["duplicate_of"]) == ("ann/2 copy of 1.jpg", "ann/1.jpg")


def test_a_part_done_again_gives_the_same_bytes_and_a_done_one_is_kept(tmp_path: Path) -> None:
    awkward(tmp_path / "photos")
    plan = planned(tmp_path / "photos", tmp_path / "out")
    out, source = Folder.of(tmp_path / "out"), Folder(plan["root"])
    told: list[tuple[str, int, int]] = []
    first = ingest_part(out, 0, source, HAAR, lambda *word: told.append(word))
    assert told == [("photos", done, first.taken) for done in range(1, first.taken + 1)]  # those refused too
    again = ingest_part(out, 0, source, HAAR)
    assert (first.resumed, again.resumed, again.files) == (False, True, first.files)
    out.remove("rejected/part-00000.parquet")  # as if killed between the two
    redone = ingest_part(out, 0, source, HAAR)
    assert (redone.resumed, redone.files, redone.rejected) == (False, first.files, first.rejected)


def test_a_photo_gone_after_planning_is_rejected_as_missing(tmp_path: Path) -> None:
    awkward(tmp_path / "photos")
    plan = planned(tmp_path / "photos", tmp_path / "out", None)
    (tmp_path / "photos" / "ann" / "1.jpg").unlink()
    result = ingest_part(Folder.of(tmp_path / "out"), 0, Folder(plan["root"]), HAAR)
    assert result.rejected["missing"] == 2


def test_books_of_whole_photos_balance(tmp_path: Path) -> None:
    """A photo of 3 pixels is refused with its reason, a black one is stored; a copy and a single are told apart."""
    photos, out = tmp_path / "photos", Folder.of(tmp_path / "out")
    photos.mkdir()
    files = {"a.jpg": encode_jpeg(portrait(0)), "black.jpg": encode_jpeg(np.zeros((90, 160, 3), np.uint8))}
    files |= {"copy of a.jpg": files["a.jpg"], "dot.png": encode_jpeg(np.zeros((3, 3, 3), np.uint8))}
    files |= {"broken.jpg": files["a.jpg"][:300]}
    for name, data in files.items():
        (photos / name).write_bytes(data)
    config = {"prepare": plain(FIT), "part_size": None}
    plan = plan_collection(out.uri, source=str(photos), layout="auto", config=config, part_size=None)
    result = ingest_part(out, 0, Folder(plan["root"]), FIT)
    assert (result.taken, result.stored, sum(result.rejected.values())) == (5, 3, 2)
    assert result.rejected["too-small"] == 1
    rows = out.read_table("images/part-00000.parquet").to_pylist()
    assert {row["image_id"]: (row["height"], row["width"]) for row in rows} == {
        "a.jpg": (100, 82),
        "black.jpg": (56, 100),
        "copy of a.jpg": (100, 82),
    }
    divided = write_catalog(out.uri, 1, SplitConfig(keep_singles=True))
    assert divided["dropped"] == {"duplicate": 1}
    assert (divided["counts"]["train"], divided["counts"]["dropped"]) == (2, 1)
    tolerant = PrepareConfig(crop="fit", size=100, min_side=1)
    dot = prepare(files["dot.png"], tolerant, None)
    assert (dot.width, dot.height) == (3, 3)


def test_too_many_bytes_are_a_row_of_the_rejected_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(encode_jpeg(portrait(0)))
    with (photos / "large.jpg").open("wb") as stream:
        stream.truncate((256 << 20) + 1)  # a hole: no byte of it is on the disk
    plan = planned(photos, tmp_path / "out")
    result = ingest_part(Folder.of(tmp_path / "out"), 0, Folder(plan["root"]), HAAR)
    assert (result.taken, result.stored, result.rejected) == (2, 1, {"too-many-bytes": 1})
    (row,) = Folder.of(tmp_path / "out").read_table("rejected/part-00000.parquet").to_pylist()
    assert (row["image_id"], row["stage"], row["reason"]) == ("large.jpg", "read", "too-many-bytes")


@pytest.mark.parametrize(
    ("reason", "stage"),
    [
        *((reason, "read") for reason in ("missing", "too-many-bytes", "not-readable")),
        *(
            (reason, "decode")
            for reason in ("empty", "not-an-image", "too-large", "too-small", "truncated", "unreadable")
        ),
        *((reason, "crop") for reason in ("no-box", "bad-box")),
        *((reason, "quality") for reason in ("face-too-small", "face-blurred", "face-turned")),
        ("no-face", "detect"),
    ],
)
def test_each_reason_is_of_a_stage(reason: str, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> bytes:
        raise BadImage(reason, "d" * 600)

    monkeypatch.setattr(reading, "read", refuses)
    row = {"image_id": "a", "uri": "a", "size": 1, "box": None}
    told: list[tuple[str, int, int]] = []
    kept, refused = ingestion._prepare_rows([row] * 2, Folder("/nowhere"), FIT, None, lambda *tell: told.append(tell))
    assert told == [("photos", 1, 2), ("photos", 2, 2)]
    assert kept == [] and refused == [{"image_id": "a", "stage": stage, "reason": reason, "detail": "d" * 500}] * 2


def test_what_the_plan_knows_of_a_photo_is_stored_with_it_in_the_plan_s_order(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", Folder.of(tmp_path / "out")
    photos.mkdir()
    data = {name: encode_jpeg(portrait(number)) for number, name in enumerate(("b.jpg", "a.jpg"))}
    for name, jpeg in data.items():
        (photos / name).write_bytes(jpeg)
    box = [40.0, 60.0, 140.0, 160.0]
    rows = [
        {
            "image_id": f"the {name}",
            "uri": name,
            "size": 9,
            "label": label,
            "split": split,
            "attributes": flags,
            "box": at,
        }
        for name, label, split, flags, at in (
            ("b.jpg", "bo", "query", [1] * 40, box),
            ("a.jpg", None, None, None, None),
            ("b.jpg", "bo", "train", None, [float("nan")] * 4),
        )
    ]
    out.write_table("plan/part-00003.parquet", pa.Table.from_pylist(rows, PLAN_SCHEMA))
    config = PrepareConfig(crop="box", margin=0.0, size=64)
    result = ingest_part(out, 3, Folder.of(photos), config)
    assert (result.part, result.taken, result.stored) == (3, 3, 1)
    assert result.rejected == {"no-box": 1, "bad-box": 1}
    (row,) = out.read_table("images/part-00003.parquet").to_pylist()
    known = {"image_id": "the b.jpg", "label": "bo", "split": "query", "attributes": [1] * 40, "box": box}
    assert row == known | {
        "width": 64,
        "height": 64,
        "jpeg": prepare(data["b.jpg"], config, None, (40.0, 60.0, 140.0, 160.0)).jpeg,
        "content_hash": hashlib.sha256(data["b.jpg"]).hexdigest(),  # of the source's bytes: copies are told by it
        "photo": "the b.jpg",
        "face": None,
        "points": None,
        "quality": None,
    }
    names = [f"{kind}/part-00003.parquet" for kind in ("plan", "images", "rejected")]
    assert result.files == {name: hash_file(out, name) for name in names}


def test_a_reader_of_one_image_takes_in_few_others(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", Folder.of(tmp_path / "out")
    photos.mkdir()
    jpeg = encode_jpeg(np.zeros((20, 20, 3), np.uint8))
    for number in range(70):
        (photos / f"{number:02}.jpg").write_bytes(jpeg)
    config = {"prepare": plain(FIT), "part_size": 70}
    plan = plan_collection(out.uri, source=str(photos), layout="auto", config=config, part_size=70)
    ingest_part(out, 0, Folder(plan["root"]), FIT)
    written = pq.ParquetFile(tmp_path / "out/images/part-00000.parquet").metadata
    assert [written.row_group(group).num_rows for group in range(written.num_row_groups)] == [64, 6]
    jpegs = next(c for c in range(written.num_columns) if written.row_group(0).column(c).path_in_schema == "jpeg")
    assert written.row_group(0).column(jpegs).compression == "UNCOMPRESSED"  # a JPEG does not shrink


def test_a_worker_loads_a_detector_once_for_all_its_parts_and_none_where_no_face_is_searched() -> None:
    other = dataclasses.replace(HAAR, min_neighbors=5)
    assert ingestion._detector(HAAR, None) is ingestion._detector(PrepareConfig(detector="haar"), None)
    searching = ingestion._detector(other, None)
    assert searching is not None and searching.config.min_neighbors == 5
    assert ingestion._detector(FIT, None) is None
    network = PrepareConfig(detector="yunet")
    assert ingestion._detector(network, yunet()) is ingestion._detector(network, bytes(bytearray(yunet())))


def collected(folder: Path, config: PrepareConfig, *photos: np.ndarray) -> tuple[Folder, ingestion.PartResult]:
    """One part, with photos 0.jpg, 1.jpg ... each labelled with its number."""
    out = Folder.of(folder / "out")
    rows = []
    for number, photo in enumerate(photos):
        (folder / f"{number}.jpg").write_bytes(encode_jpeg(photo))
        row = {"image_id": f"{number}.jpg", "uri": f"{number}.jpg", "size": 9, "label": str(number)}
        rows.append(row | {"attributes": [1] * 40, "split": "query"})
    out.write_table("plan/part-00000.parquet", pa.Table.from_pylist(rows, PLAN_SCHEMA))
    out.write_bytes("detector.onnx", yunet())
    return out, ingest_part(out, 0, Folder.of(folder), config)


def group(*faces: tuple[int, int, int, int]) -> np.ndarray:
    """A photo of drawn people. Args: faces: identity, x, y and width of each."""
    photo = np.full((700, 1000, 3), 128, np.uint8)
    for identity, x, y, width in faces:
        height = width * 218 // 178
        photo[y : y + height, x : x + width] = resize(portrait(identity), width, height)
    return photo


def test_each_face_of_a_photo_is_a_row_and_only_the_best_has_the_source_s_label(tmp_path: Path) -> None:
    config = PrepareConfig(detector="yunet", crop="aligned", faces="all", size=112, margin=0.0, min_face_size=40)
    photos = (
        group((1, 380, 200, 240), (2, 30, 30, 300), (3, 800, 500, 60), (4, 800, 50, 160)),
        group((5, 500, 100, 60)),
        group(),
        group((6, 200, 200, 150)),
    )
    out, done = collected(tmp_path, config, *photos)
    rows = out.read_table("images/part-00000.parquet").to_pylist()
    assert [row["image_id"] for row in rows] == ["0.jpg#0", "0.jpg#1", "0.jpg#2", "3.jpg#0"]
    assert [(row["photo"], row["face"]) for row in rows] == [("0.jpg", 0), ("0.jpg", 1), ("0.jpg", 2), ("3.jpg", 0)]
    assert [row["label"] for row in rows] == [None, "0", None, "3"], "the one in the middle, not the largest"
    assert [row["attributes"] is not None for row in rows] == [False, True, False, True]
    assert {row["split"] for row in rows} == {"query"} and len({row["content_hash"] for row in rows}) == 2
    for row in rows:
        assert (row["width"], row["height"], len(row["points"])) == (112, 112, 10)
        assert row["quality"]["size"] >= 40 and 0.8 <= row["quality"]["confidence"] <= 1
    middle = rows[1]
    assert 380 < middle["points"][0] < middle["points"][2] < 620 and 200 < middle["points"][1] < 494
    refused = out.read_table("rejected/part-00000.parquet").to_pylist()
    assert [(row["image_id"], row["stage"], row["reason"]) for row in refused] == [
        ("0.jpg#3", "face", "face-too-small"),
        ("1.jpg#0", "face", "face-too-small"),
        ("1.jpg", "quality", "face-too-small"),
        ("2.jpg", "detect", "no-face"),
    ]
    assert (done.taken, done.photos, done.stored, done.faces) == (4, 2, 4, 6)
    assert (done.rejected, done.refused) == ({"face-too-small": 1, "no-face": 1}, {"face-too-small": 2})
    assert done.photos + sum(done.rejected.values()) == done.taken
    assert done.stored + sum(done.refused.values()) == done.faces
    again = ingest_part(out, 0, Folder.of(tmp_path), config)
    assert again == dataclasses.replace(done, resumed=True)


def test_of_a_photo_that_is_one_row_the_best_face_is_kept_with_its_points_and_quality(tmp_path: Path) -> None:
    config = PrepareConfig(detector="yunet", size=96)
    out, done = collected(tmp_path, config, group((1, 380, 200, 240), (2, 30, 30, 200)), group())
    (row,) = out.read_table("images/part-00000.parquet").to_pylist()
    assert (row["image_id"], row["photo"], row["face"], row["label"]) == ("0.jpg", "0.jpg", None, "0")
    assert 380 < row["points"][4] < 620 and row["quality"]["turn"] is not None
    assert (done.taken, done.photos, done.stored, done.faces, done.refused) == (2, 1, 1, 1, {})


def test_a_worker_of_ingest_loads_nothing_that_it_does_not_use() -> None:
    """PyTorch alone is 300 MB a process, and there is one process a core."""
    heavy = ("torch", "faiss", "pycolmap", "matplotlib", "ray", "mlflow", "scipy", "pandas")
    program = f"import sys, retrieval.data.ingestion; sys.exit(', '.join(m for m in {heavy} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
