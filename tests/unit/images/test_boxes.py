"""Boxes overlap, grow and are cut exactly."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.images.boxes import crop, expand_box, overlap
from retrieval.images.pixels import resize
from retrieval.images.settings import Box


def test_boxes_that_only_touch_do_not_overlap() -> None:
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == overlap((0, 0, 10, 10), (0, 10, 10, 20)) == 0
    assert overlap((0, 0, 10, 10), (20, 20, 30, 30)) == 0  # apart both ways: no positive product of two negatives
    assert overlap((0, 0, 10, 20), (0, 10, 10, 30)) == pytest.approx(1 / 3)


def test_expand_makes_a_square_around_the_centre() -> None:
    assert expand_box((10, 20, 30, 60), 0.0) == (0, 20, 40, 60)
    assert expand_box((0, 0, 100, 100), 0.15) == pytest.approx((-15, -15, 115, 115))
    assert expand_box((0, 0, 100, 100), -0.1) == pytest.approx((10, 10, 90, 90))


def test_crop_inside_is_a_slice() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    assert np.array_equal(crop(image, (10.2, 5.4, 30.2, 25.4), 20), image[5:25, 10:30])


def test_crop_outside_repeats_the_border() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    padded = np.pad(image, ((10, 5), (3, 12), (0, 0)), mode="edge")
    assert np.array_equal(crop(image, (-3, -10, 32, 25), 35), padded)


def test_a_box_s_edges_are_rounded_and_its_last_pixel_is_not_cut() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    assert np.array_equal(crop(image, (9.5, 4.5, 29.4, 24.4), 19), resize(image[5:24, 10:29], 19, 19))
    assert np.array_equal(crop(image, (59.0, 49.0, 60.0, 50.0), 1), image[49:, 59:])
    half = crop(image, (-10, -10, 1, 1), 11)
    assert (half == image[0, 0]).all()  # one pixel of the image, and its border repeated


@pytest.mark.parametrize(
    "box",
    [
        *((100, 0, 120, 20), (0, -30, 20, -10), (5, 5, 5, 9), (9, 9, 5, 5)),
        *((20, 0, 40, 20), (0, 20, 20, 40), (-20, 0, 0, 20), (0, -20, 20, 0)),  # that only touch it
    ],
)
def test_crop_refuses_a_box_off_the_image(box: Box) -> None:
    with pytest.raises(ValueError, match="does not meet"):
        crop(np.zeros((20, 20, 3), np.uint8), box, 10)
