"""The kernel that gallery and query photos share cuts the right pixels at the right resolution."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval.images.boxes import expand_box, overlap
from retrieval.images.pixels import BadImage, decode, encode_jpeg, resize
from retrieval.images.preparation import prepare
from retrieval.images.settings import PrepareConfig
from tests.support.photos import portrait
from tests.support.prepared import DETECTOR, HAAR, error, pixels_of, rough

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_a_search_without_a_detector_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a detector"):
        prepare(encode_jpeg(portrait(1)), HAAR, None)


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
