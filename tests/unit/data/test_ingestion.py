"""The kernel cuts the right pixels at the right resolution; a part's books balance whatever the photographs are."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval.artifacts.collection import IMAGE_SCHEMA, REJECTED_SCHEMA
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.data.catalog import plan_collection, source_fingerprint, write_catalog
from retrieval.data.demo.people import sample_person, sample_shot
from retrieval.data.demo.portrait import render
from retrieval.data.ingestion import ingest_part
from retrieval.data.settings import SplitConfig
from retrieval.images.faces import FaceDetector, expand_box, overlap
from retrieval.images.pixels import BadImage, decode, encode_jpeg, limit_threads, resize
from retrieval.images.preparation import Prepared, prepare
from retrieval.images.settings import PrepareConfig

HAAR = PrepareConfig()
DETECTOR = FaceDetector(HAAR)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    limit_threads(1)
    yield
    limit_threads(-1)


def portrait(identity: int, size: tuple[int, int] = (178, 218), shot: int = 0) -> np.ndarray:
    person = sample_person(0, identity)
    return render(person, sample_shot(0, identity, shot, person), size)


def pixels_of(done: Prepared) -> np.ndarray:
    return decode(done.jpeg, min_side=1)[0].astype(int)


def test_haar_crop_equals_its_steps() -> None:
    data = encode_jpeg(portrait(1))
    done = prepare(data, HAAR, DETECTOR)
    (box,) = DETECTOR.detect(decode(data)[0])
    assert done.box == expand_box(box, 0.15)
    assert (done.width, done.height, pixels_of(done).shape) == (218, 218, (218, 218, 3))
    assert done == prepare(data, HAAR, DETECTOR)  # to the byte


def test_margin_and_size_are_kept() -> None:
    data = encode_jpeg(portrait(1))
    tight = prepare(data, PrepareConfig(margin=0.0, size=96), DETECTOR)
    wide = prepare(data, PrepareConfig(margin=0.5, size=96), DETECTOR)
    assert wide.box[2] - wide.box[0] == pytest.approx(2 * (tight.box[2] - tight.box[0]))
    assert (tight.width, tight.height) == (96, 96)


@pytest.mark.parametrize("scale", [4, 8])
def test_a_large_photo_gives_the_crop_of_a_small_one(scale: int) -> None:
    """Decoded at reduced scale, the same face is cut from the same place, in pixels of the full photo."""
    small = portrait(2)
    large = encode_jpeg(resize(small, 178 * scale, 218 * scale))
    done = prepare(large, HAAR, DETECTOR)
    wanted = prepare(encode_jpeg(small), HAAR, DETECTOR)
    assert overlap(done.box, tuple(scale * edge for edge in wanted.box)) > 0.8  # type: ignore[arg-type]


def test_a_small_face_in_a_large_photo_is_cut_at_full_resolution() -> None:
    """Its crop must be as sharp as one made without any reduction."""
    photo = np.full((1600, 2400, 3), 120, np.uint8)
    photo[600:1036, 1000:1356] = portrait(3, (356, 436))
    data = encode_jpeg(photo, 98)
    done = prepare(data, HAAR, DETECTOR)
    x1, y1, x2, y2 = (round(edge) for edge in done.box)
    sharp = resize(np.ascontiguousarray(photo[y1:y2, x1:x2]), 218, 218)
    assert np.abs(pixels_of(done) - sharp).mean() < 3
    side = x2 - x1
    blurred = resize(resize(sharp, side // 4, side // 4), 218, 218)
    assert np.abs(pixels_of(done) - blurred).mean() > 2 * np.abs(pixels_of(done) - sharp).mean()


def test_turned_photo_is_searched_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    stream = io.BytesIO()
    Image.fromarray(np.rot90(portrait(4), -1)).save(stream, "PNG", exif=exif)
    upright = io.BytesIO()
    Image.fromarray(portrait(4)).save(upright, "PNG")
    assert prepare(stream.getvalue(), HAAR, DETECTOR) == prepare(upright.getvalue(), HAAR, DETECTOR)


def test_crop_none_stretches_the_whole_photo() -> None:
    done = prepare(encode_jpeg(portrait(5)), PrepareConfig(crop="none"), None)
    assert done.box == (0, 0, 178, 218)
    assert np.abs(pixels_of(done) - resize(portrait(5), 218, 218)).mean() < 4


@pytest.mark.parametrize("scale", [1, 8])
def test_crop_box_takes_the_sources_box(scale: int) -> None:
    photo = resize(portrait(6), 178 * scale, 218 * scale)
    box = (40.0 * scale, 60.0 * scale, 140.0 * scale, 160.0 * scale)
    done = prepare(encode_jpeg(photo, 98), PrepareConfig(crop="box", margin=0.0), None, box)
    assert done.box == box
    wanted = resize(np.ascontiguousarray(photo[60 * scale : 160 * scale, 40 * scale : 140 * scale]), 218, 218)
    assert np.abs(pixels_of(done) - wanted).mean() < 4


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (None, "no-box"),
        ((10.0, 10.0, 10.0, 50.0), "bad-box"),
        ((float("nan"), 0.0, 50.0, 50.0), "bad-box"),
        ((500.0, 500.0, 600.0, 600.0), "bad-box"),
        ((-1e6, -1e6, 1e6, 1e6), "bad-box"),
        ((0.0, 0.0, 1e30, 1e30), "bad-box"),
        ((50.0, 50.0, 50.2, 50.2), "bad-box"),
    ],
)
def test_boxes_that_cannot_be_cut(box: Any, reason: str) -> None:
    with pytest.raises(BadImage) as caught:
        prepare(encode_jpeg(portrait(6)), PrepareConfig(crop="box"), None, box)
    assert caught.value.reason == reason


@pytest.mark.parametrize("shape", [(16, 3000), (3000, 16), (16, 16)])
@pytest.mark.parametrize("crop", ["haar", "none"])
def test_extreme_shapes_end_in_a_reason_or_a_square(shape: tuple[int, int], crop: Any) -> None:
    data = encode_jpeg(np.full((*shape, 3), 90, np.uint8))
    if crop == "none":
        assert prepare(data, PrepareConfig(crop=crop), None).width == 218
        return
    with pytest.raises(BadImage, match="no-face"):
        prepare(data, PrepareConfig(crop=crop), DETECTOR)


FIT = PrepareConfig(crop="fit", size=100)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((150, 200), (75, 100)),
        ((400, 300), (100, 75)),
        ((60, 80), (60, 80)),
        ((801, 1607), (50, 100)),
        ((16, 3000), (1, 100)),
    ],
)
def test_crop_fit_keeps_the_whole_photo_in_its_shape(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    photo = resize(portrait(5), shape[1], shape[0])
    done = prepare(encode_jpeg(photo, 98), FIT, None)
    assert (done.height, done.width) == expected == pixels_of(done).shape[:2]
    assert done.box == (0, 0, shape[1], shape[0])
    assert np.abs(pixels_of(done) - resize(photo, expected[1], expected[0])).mean() < 4
    assert done == prepare(encode_jpeg(photo, 98), FIT, None)


def test_crop_fit_of_a_turned_photo_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    stream = io.BytesIO()
    photo = resize(portrait(4), 150, 300)
    Image.fromarray(np.rot90(photo, -1)).save(stream, "PNG", exif=exif)
    done = prepare(stream.getvalue(), FIT, None, (0.0, 0.0, 150.0, 150.0))
    assert (done.width, done.height) == (50, 50)
    assert np.abs(pixels_of(done) - resize(np.ascontiguousarray(photo[:150]), 50, 50)).mean() < 4


def test_a_query_s_box_is_cut_at_full_resolution_and_shrunk_as_the_whole_photo() -> None:
    """1600 x 1200 to 100: a box of 640 x 160 becomes 100 * 640 / 1600 = 40 wide, 10 high."""
    y, x = np.mgrid[0:1200, 0:1600]  # each place has its own colour
    photo = np.stack([x * 255 / 1600, y * 255 / 1200, 255 - x * 255 / 1600], axis=2).astype(np.uint8)
    done = prepare(encode_jpeg(photo, 98), FIT, None, (300.4, 399.6, 939.5, 560.0))
    assert done.box == (300, 400, 940, 560)
    assert (done.width, done.height) == (40, 10)
    wanted = resize(np.ascontiguousarray(photo[400:560, 300:940]), 40, 10)
    assert np.abs(pixels_of(done) - wanted).mean() < 2
    small = prepare(encode_jpeg(photo[:60, :80]), FIT, None, (10.0, 10.0, 50.0, 40.0))
    assert (small.width, small.height) == (40, 30)  # the whole photo would not be shrunk, so its part is not


@pytest.mark.parametrize(
    "box",
    [
        (50.0, 50.0, 50.2, 90.0),
        (float("nan"), 0.0, 50.0, 50.0),
        (0.0, 0.0, float("inf"), 50.0),
        (500.0, 500.0, 600.0, 600.0),
        (90.0, 10.0, 20.0, 50.0),
    ],
)
def test_a_query_s_box_without_a_pixel_is_a_bad_box(box: Any) -> None:
    with pytest.raises(BadImage) as caught:
        prepare(encode_jpeg(portrait(6)), FIT, None, box)
    assert caught.value.reason == "bad-box"
    reaching_out = prepare(encode_jpeg(portrait(6)), FIT, None, (-20.0, 10.0, 90.0, 500.0))
    assert reaching_out.box == (0, 10, 90, 218)


def test_settings_survive_a_model_bundle_and_are_checked() -> None:
    config = PrepareConfig(crop="none", margin=0.2, size=160)
    assert PrepareConfig(**plain(config)) == config
    for setting, message in (
        ({"crop": "round"}, "haar, box, none, fit"),
        ({"margin": -0.5}, "-0.4 to 2"),
        ({"size": 8}, "16 to 2048"),
        ({"quality": 0}, "1 to 100"),
        ({"max_pixels": 10**9}, "max_pixels"),
        ({"min_face": 5}, "min_face"),
    ):
        settings: dict[str, Any] = setting
        with pytest.raises(ValueError, match=message):
            PrepareConfig(**settings)
    with pytest.raises(ValueError, match="FaceDetector"):
        prepare(encode_jpeg(portrait(1)), HAAR, None)


# ---- a whole collection, without a cluster ----


def bomb() -> bytes:
    """The header of a PNG of 60,000 x 60,000 pixels, and a little of its data."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"\0" * 100))
    packed = [struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def awkward(folder: Path) -> dict[str, str | None]:
    """Real-life photographs of two people and one seen once; name -> reason it is rejected for, None: stored."""
    folder.mkdir(parents=True)
    face = encode_jpeg(portrait(0))
    cmyk, deep, moving = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.fromarray(portrait(0, shot=1)).convert("CMYK").save(cmyk, "JPEG", quality=95)
    grey = np.asarray(Image.fromarray(portrait(0, shot=2)).convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(deep, "PNG")
    frames = [Image.fromarray(portrait(1, shot=shot)) for shot in (0, 1)]
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    files: dict[str, tuple[bytes, str | None]] = {
        "ann/1.jpg": (face, None),
        "ann/2 copy of 1.jpg": (face, None),
        "ann/cmyk.jpg": (cmyk.getvalue(), None),
        "ann/deep.png": (deep.getvalue(), None),
        "ann/cut.jpg": (face[: len(face) // 2], "truncated"),
        "b\u00f6 lee/\u5199\u771f 1.gif": (moving.getvalue(), None),
        "b\u00f6 lee/2.jpg": (encode_jpeg(portrait(1, shot=2)), None),
        "b\u00f6 lee/empty.jpg": (b"", "empty"),
        "b\u00f6 lee/text.jpg": (b"Not a photograph at all.\n", "not-an-image"),
        "b\u00f6 lee/wall.jpg": (encode_jpeg(np.full((218, 178, 3), 99, np.uint8)), "no-face"),
        "cy/bomb.png": (bomb(), "too-large"),
        "cy/only.jpg": (encode_jpeg(portrait(2)), None),
        "cy/tiny.png": (encode_jpeg(np.zeros((8, 8, 3), np.uint8)), "too-small"),
    }
    for name, (data, _) in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    (folder / "cy" / "dead.jpg").symlink_to("nowhere.jpg")
    return {name: reason for name, (_, reason) in files.items()} | {"cy/dead.jpg": "missing"}


def planned(source: Path, out: Path, part_size: int | None = 5) -> dict[str, Any]:
    config = {"prepare": plain(HAAR), "part_size": part_size}
    return plan_collection(str(out), source=str(source), layout="auto", config=config, part_size=part_size)


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
    first = ingest_part(out, 0, source, HAAR)
    again = ingest_part(out, 0, source, HAAR)
    assert (first.resumed, again.resumed, again.files) == (False, True, first.files)
    out.remove("rejected/part-00000.parquet")  # as if killed between the two
    redone = ingest_part(out, 0, source, HAAR)
    assert (redone.resumed, redone.files, redone.rejected) == (False, first.files, first.rejected)


def test_the_plan_is_read_back_and_a_changed_source_refused(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    awkward(photos)
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
        awkward(tmp_path / place)
    assert source_fingerprint(str(tmp_path / "here")) == source_fingerprint(str(tmp_path / "there"))
    assert source_fingerprint(str(tmp_path / "here"), "folder") != source_fingerprint(str(tmp_path / "here"))


@pytest.mark.parametrize(("photos", "parts"), [(1, 1), (16, 1), (17, 2), (256, 16), (4096, 16), (4097, 17)])
def test_number_of_parts_follows_the_number_of_photos(tmp_path: Path, photos: int, parts: int) -> None:
    table = tmp_path / "photos.csv"
    (tmp_path / "0.jpg").write_bytes(b"x")
    table.write_text("path\n" + "".join(f"{number}.jpg\n" for number in range(photos)))
    assert planned(table, tmp_path / "out", None)["parts"] == parts


@pytest.mark.parametrize("where", ["below a file", "/proc/no-folder-can-be-made-here"])
def test_an_unwritable_place_is_refused_in_words(tmp_path: Path, where: str) -> None:
    """Both fail for root too, for whom permission bits count for nothing."""
    awkward(tmp_path / "photos")
    (tmp_path / "file").write_bytes(b"")
    out = tmp_path / "file" / "out" if where == "below a file" else Path(where)
    with pytest.raises(ValueError, match=r"Cannot write to .*Name a folder that can be made"):
        planned(tmp_path / "photos", out)


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
