"""Each crop is cut from the coarsest decode of the photo that still gives it its pixels."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.images.pixels import encode_jpeg, resize
from retrieval.images.preparation import prepare
from retrieval.images.settings import PrepareConfig
from tests.support.photos import portrait
from tests.support.prepared import DETECTOR, HAAR, error, pixels_of, rough

pytestmark = pytest.mark.usefixtures("one_thread")


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
