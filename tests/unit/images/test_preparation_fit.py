"""A photo that keeps its shape, whole or cut to a query's box, is shrunk as the published figures' photos were."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval.images.pixels import BadImage, encode_jpeg, resize
from retrieval.images.preparation import prepare
from retrieval.images.settings import PrepareConfig
from tests.support.photos import portrait
from tests.support.prepared import pixels_of

pytestmark = pytest.mark.usefixtures("one_thread")

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


def test_halves_are_rounded_to_even_as_pillow_does() -> None:
    done = prepare(encode_jpeg(portrait(6)), FIT, None, (10.5, 11.5, 40.5, 61.5))
    assert done.box == (10, 12, 40, 62)
    done = prepare(encode_jpeg(portrait(6)), FIT, None, (10.6, 11.6, 40.4, 61.4))
    assert done.box == (11, 12, 40, 61)
