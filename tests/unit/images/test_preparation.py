"""The kernel that gallery and query photos share cuts the right pixels at the right resolution."""

from __future__ import annotations

import dataclasses
import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval.images import preparation
from retrieval.images.alignment import align
from retrieval.images.boxes import expand_box, overlap
from retrieval.images.detectors.face import Face, Points
from retrieval.images.detectors.haar import HaarDetector
from retrieval.images.detectors.yunet import YunetDetector
from retrieval.images.pixels import BadImage, decode, encode_jpeg, resize
from retrieval.images.preparation import Prepared, prepare, prepare_all
from retrieval.images.quality import measure
from retrieval.images.settings import Crop, DetectorConfig, PrepareConfig
from tests.support.photos import portrait, yunet

pytestmark = pytest.mark.usefixtures("one_thread")

HAAR = PrepareConfig(detector="haar")
DETECTOR = HaarDetector(HAAR)


def pixels_of(done: Prepared) -> np.ndarray:
    return decode(done.jpeg, min_side=1)[0].astype(int)


def test_haar_crop_equals_its_steps() -> None:
    data = encode_jpeg(portrait(1))
    done = prepare(data, HAAR, DETECTOR)
    (box,) = (face.box for face in DETECTOR.detect(decode(data)[0]))
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
@pytest.mark.parametrize("crop", ["face", "none"])
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
    whole = prepare(stream.getvalue(), FIT, None)
    assert (whole.width, whole.height, whole.box) == (50, 100, (0, 0, 150, 300))
    assert np.abs(pixels_of(whole) - resize(photo, 50, 100)).mean() < 4
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


def test_a_search_without_a_detector_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a detector"):
        prepare(encode_jpeg(portrait(1)), HAAR, None)


def rough(height: int, width: int) -> np.ndarray:
    """Grey blocks of 4 x 4 pixels: a decode at half the size keeps them, one at an eighth does not."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 1), dtype=np.uint8)
    return coarse.repeat(4, axis=0).repeat(4, axis=1).repeat(3, axis=2)


def error(done: Prepared, wanted: np.ndarray) -> float:
    return float(np.abs(pixels_of(done) - wanted).mean())


@pytest.fixture
def reductions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The reduction of each decode, noted as it happens."""
    seen: list[int] = []

    def noted(data: bytes, **options: Any) -> tuple[np.ndarray, int]:
        pixels, reduction = decode(data, **options)
        seen.append(reduction)
        return pixels, reduction

    monkeypatch.setattr(preparation, "decode", noted)
    return seen


@pytest.mark.parametrize(("side", "reduction"), [(96, 1), (196, 1), (200, 2), (400, 4), (396, 2), (800, 8)])
def test_a_box_is_cut_from_the_coarsest_decode_that_is_fine_enough(
    side: int, reduction: int, reductions: list[int]
) -> None:
    photo = rough(800, 1200)
    config = PrepareConfig(crop="box", margin=0.0, size=100, quality=98)
    done = prepare(encode_jpeg(photo, 98), config, None, (200.0, 0.0, 200.0 + side, float(side)))
    assert reductions == [reduction]
    assert error(done, resize(np.ascontiguousarray(photo[:side, 200 : 200 + side]), 100, 100)) < 4


@pytest.mark.parametrize(("size", "reduction"), [(100, 8), (101, 4), (200, 4), (201, 2), (401, 1)])
def test_a_whole_photo_is_decoded_as_coarsely_as_its_size_allows(
    size: int, reduction: int, reductions: list[int]
) -> None:
    photo = rough(800, 1200)
    done = prepare(encode_jpeg(photo, 98), PrepareConfig(crop="none", size=size, quality=98), None)
    assert done.box == (0, 0, 1200, 800)
    assert reductions == [reduction]
    assert error(done, resize(photo, size, size)) < 12


@pytest.mark.parametrize("shape", [(800, 1200), (1200, 800)])
@pytest.mark.parametrize(("size", "reduction"), [(150, 8), (152, 4), (300, 4), (302, 2), (602, 1), (1300, 1)])
def test_a_fitted_photo_is_decoded_as_coarsely_as_both_its_sides_allow(
    shape: tuple[int, int], size: int, reduction: int, reductions: list[int]
) -> None:
    photo = rough(*shape)
    done = prepare(encode_jpeg(photo, 98), PrepareConfig(crop="fit", size=size, quality=98), None)
    assert max(done.width, done.height) == min(size, 1200)
    assert reductions == [reduction]
    assert error(done, resize(photo, done.width, done.height)) < 5


def test_a_face_is_searched_in_a_decode_that_serves_the_crop_too(reductions: list[int]) -> None:
    large = encode_jpeg(resize(portrait(2), 178 * 8, 218 * 8))
    done = prepare(large, HAAR, DETECTOR)  # 1424 x 1744: at half the size both sides have the 436 pixels
    assert reductions == [2]
    prepare(large, PrepareConfig(size=64), DETECTOR)  # of twice the size and of the search's side the greater
    prepare(large, PrepareConfig(size=64, detect_side=400), DETECTOR)
    assert reductions == [2, 8, 2]
    wanted = prepare(encode_jpeg(portrait(2)), HAAR, DETECTOR)
    assert error(done, pixels_of(wanted)) < 12


def test_the_margin_is_put_around_the_source_s_box() -> None:
    photo = rough(200, 200)
    done = prepare(encode_jpeg(photo, 98), PrepareConfig(crop="box", margin=0.5, size=80), None, (80, 60, 120, 100))
    assert done.box == (60, 40, 140, 120)
    assert error(done, photo[40:120, 60:140]) < 8


def test_a_box_may_be_four_times_the_photo_and_no_more() -> None:
    data, config = encode_jpeg(rough(40, 48)), PrepareConfig(crop="box", margin=0.0, size=64)
    assert prepare(data, config, None, (-72.0, -76.0, 120.0, 116.0)).width == 64  # 192 = 4 * 48
    with pytest.raises(BadImage, match="bad-box: .* more than 4 times as large"):
        prepare(data, config, None, (-73.0, -77.0, 120.0, 116.0))


def test_halves_are_rounded_to_even_as_pillow_does() -> None:
    done = prepare(encode_jpeg(portrait(6)), FIT, None, (10.5, 11.5, 40.5, 61.5))
    assert done.box == (10, 12, 40, 62)
    done = prepare(encode_jpeg(portrait(6)), FIT, None, (10.6, 11.6, 40.4, 61.4))
    assert done.box == (11, 12, 40, 61)


@pytest.mark.parametrize("crop", ["none", "fit", "box", "face"])
def test_quality_and_limits_hold_for_every_crop(crop: Any) -> None:
    data, detector = encode_jpeg(portrait(1)), DETECTOR if crop == "face" else None
    box = (30.0, 40.0, 130.0, 140.0) if crop == "box" else None
    for quality in (30, 90):
        done = prepare(data, PrepareConfig(crop=crop, quality=quality), detector, box)
        stored = Image.open(io.BytesIO(done.jpeg))
        same = io.BytesIO()
        stored.save(same, "JPEG", quality=quality)
        assert stored.quantization == Image.open(same).quantization  # type: ignore[attr-defined]
        assert stored.size == (done.width, done.height)
    with pytest.raises(BadImage, match="too-large"):
        prepare(data, PrepareConfig(crop=crop, max_pixels=178 * 218 - 1), detector, box)
    with pytest.raises(BadImage, match="too-small"):
        prepare(data, PrepareConfig(crop=crop, min_side=179), detector, box)
    assert prepare(data, PrepareConfig(crop=crop, max_pixels=178 * 218, min_side=178), detector, box)


def test_a_photo_without_a_face_is_told_with_its_own_size() -> None:
    with pytest.raises(BadImage, match="no-face: no face found in 2400 x 1600 pixels"):
        prepare(encode_jpeg(np.full((1600, 2400, 3), 90, np.uint8)), HAAR, DETECTOR)
    with pytest.raises(BadImage, match="no-box: .*the source gives no box"):
        prepare(encode_jpeg(portrait(1)), PrepareConfig(crop="box"), DETECTOR)


def test_of_several_faces_the_one_in_the_middle_is_taken() -> None:
    photo = np.full((436, 890, 3), 120, np.uint8)
    photo[109:327, 356:534] = portrait(3)
    photo[0:218, 0:178] = portrait(2)
    done = prepare(encode_jpeg(photo), HAAR, DETECTOR)
    assert 356 < (done.box[0] + done.box[2]) / 2 < 534


ALIGNED = PrepareConfig(crop="aligned", detector="yunet", size=112, margin=0.0, quality=98)
YUNET = YunetDetector(ALIGNED, yunet())


def test_an_aligned_face_is_what_its_points_make_of_the_photo() -> None:
    photo = decode(encode_jpeg(portrait(1), 98))[0]
    (face,) = YUNET.detect(photo)
    assert face.points is not None
    done = prepare(encode_jpeg(portrait(1), 98), ALIGNED, YUNET)
    wanted, box = align(photo, face.points, 112)
    assert error(done, wanted) < 3 and done.box == pytest.approx(box) and done.points == face.points
    assert done.quality == measure(face, wanted)
    wide = prepare(encode_jpeg(portrait(1), 98), dataclasses.replace(ALIGNED, margin=0.25, size=168), YUNET)
    assert error(wide, align(photo, face.points, 168, 0.25)[0]) < 3


@pytest.mark.parametrize("scale", [4, 8])
def test_an_aligned_face_of_a_large_photo_is_that_of_a_small_one(scale: int, reductions: list[int]) -> None:
    large = prepare(encode_jpeg(resize(portrait(2), 178 * scale, 218 * scale), 98), ALIGNED, YUNET)
    assert reductions == [scale // 2]
    small = prepare(encode_jpeg(portrait(2), 98), ALIGNED, YUNET)
    assert overlap(large.box, tuple(scale * edge for edge in small.box)) > 0.8  # type: ignore[arg-type]
    assert error(large, pixels_of(small)) < 20
    assert large.quality is not None and small.quality is not None
    assert large.quality.size == pytest.approx(scale * small.quality.size, rel=0.1)


def crowd() -> np.ndarray:
    """2,400 x 1,600: a large face, one in the middle, and a small one of 100 pixels."""
    photo = np.full((1600, 2400, 3), 120, np.uint8)
    photo[100:972, 60:772] = portrait(1, (712, 872))
    photo[560:1040, 1000:1392] = portrait(2, (392, 480))
    photo[1400:1522, 2200:2300] = portrait(3, (100, 122))
    return photo


@pytest.mark.parametrize("crop", ["face", "aligned"])
def test_all_faces_are_cut_as_sharp_as_the_photo_has_them(crop: Crop, reductions: list[int]) -> None:
    config = dataclasses.replace(ALIGNED, crop=crop, faces="all")
    photo, data = crowd(), encode_jpeg(crowd(), 98)
    faces = prepare_all(data, config, YUNET)
    assert (sorted(faces.kept), faces.refused, faces.best) == ([0, 1, 2], {}, 1)
    assert len(reductions) <= 2
    for face, (x1, x2) in zip(faces.kept.values(), ((60, 772), (1000, 1392), (2200, 2300)), strict=True):
        assert face.points is not None and all(x1 < x < x2 for x, _ in face.points)
        wanted = (
            align(photo, face.points, 112)[0]
            if crop == "aligned"
            else resize(np.ascontiguousarray(crop_of(photo, face.box)), 112, 112)
        )
        assert error(face, wanted) < 5


def crop_of(photo: np.ndarray, box: tuple[float, ...]) -> np.ndarray:
    x1, y1, x2, y2 = (round(edge) for edge in box)
    return photo[y1:y2, x1:x2]


def test_faces_that_are_too_poor_are_counted_and_the_best_of_the_others_is_taken() -> None:
    data = encode_jpeg(crowd(), 95)
    config = dataclasses.replace(ALIGNED, faces="all", min_face_size=250)
    faces = prepare_all(data, config, YUNET)
    assert (sorted(faces.kept), sorted(faces.refused), faces.best) == ([0], [1, 2], 0)
    assert {bad.reason for bad in faces.refused.values()} == {"face-too-small"}
    assert prepare(data, config, YUNET).box == pytest.approx(faces.kept[0].box, abs=30)
    none = dataclasses.replace(config, min_face_size=2000)
    assert prepare_all(data, none, YUNET).best is None
    with pytest.raises(BadImage, match="face-too-small: 2.. pixels, the limit is 2000"):  # the best one's reason
        prepare(data, none, YUNET)
    with pytest.raises(BadImage, match="no-face"):
        prepare_all(encode_jpeg(np.full((300, 300, 3), 90, np.uint8)), config, YUNET)
    with pytest.raises(BadImage, match="empty"):
        prepare_all(b"", config, YUNET)


def test_alignment_without_points_is_refused() -> None:
    with pytest.raises(ValueError, match="five points: yunet"):
        prepare(encode_jpeg(portrait(1)), ALIGNED, DETECTOR)


@pytest.mark.parametrize("points", [((9.0, 9.0),) * 5, ((math.nan, 9.0), *((float(n), 9.0) for n in range(4)))])
def test_a_face_whose_points_are_in_no_place_is_none(points: Points) -> None:
    """A photo that a network reads oddly is a reason of its own, and does not end the part it is in."""

    class Odd:
        config: DetectorConfig = PrepareConfig(detector="yunet")

        def detect(self, image: np.ndarray, *, every: bool = False) -> list[Face]:
            return [Face((2.0, 2.0, 40.0, 40.0), 0.9, points)]

    config = PrepareConfig(detector="yunet", crop="aligned", margin=0.0)
    for work in (prepare, prepare_all):
        with pytest.raises(BadImage, match="no face found"):
            work(encode_jpeg(rough(64, 64)), config, Odd())
