"""What is one picture and what is not: a picture changed as copies are, beside pictures that only look like it."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from retrieval.images.likeness import SIDE, likeness, thumbnail
from retrieval.images.pixels import Pixels, as_pixels, encode_jpeg, resize
from tests.support.grouped import texture
from tests.support.photos import portrait

LEAST = 0.97


def cropped(image: Pixels, share: float = 0.05) -> Pixels:
    height, width = image.shape[:2]
    top, left = int(share * height), int(share * width * 0.4)
    return np.ascontiguousarray(image[top:, left : left + int((1 - share) * width)])


CHANGES: dict[str, Callable[[Pixels], bytes]] = {
    "recompressed": lambda image: encode_jpeg(image, quality=40),
    "half": lambda image: encode_jpeg(resize(image, image.shape[1] // 2, image.shape[0] // 2)),
    "larger": lambda image: encode_jpeg(resize(image, 2 * image.shape[1], 2 * image.shape[0]), quality=80),
    "cropped": lambda image: encode_jpeg(cropped(image)),
    "darker": lambda image: encode_jpeg((image * 0.6).astype(np.uint8)),
    "grey": lambda image: encode_jpeg(np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)),
    "all": lambda image: encode_jpeg(resize(cropped(image), 120, 110), quality=60),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("picture", [texture(1, 160), portrait(3), portrait(5, shot=2)])
def test_a_changed_copy_is_the_same_picture(picture: Pixels, change: str) -> None:
    copy = thumbnail(CHANGES[change](picture))
    assert likeness(thumbnail(encode_jpeg(picture)), copy) >= LEAST


def test_other_pictures_are_other_pictures() -> None:
    shots = [thumbnail(encode_jpeg(portrait(identity, shot=shot))) for identity in (0, 1) for shot in range(3)]
    for one in range(len(shots)):
        for other in range(one):
            assert likeness(shots[one], shots[other]) < LEAST
    assert likeness(thumbnail(encode_jpeg(texture(1))), thumbnail(encode_jpeg(texture(2)))) == 0.0


def test_a_picture_whose_detail_differs_in_one_place_is_another() -> None:
    image = texture(4, 160)
    other = image.copy()
    other[40:110, 40:110] = texture(5, 160)[40:110, 40:110]
    assert likeness(thumbnail(encode_jpeg(image)), thumbnail(encode_jpeg(other))) < LEAST


def test_pictures_without_contrast_are_alike_to_nothing() -> None:
    blank = np.full((SIDE, SIDE), 120, np.uint8)
    assert likeness(blank, blank) == 0.0
    assert likeness(blank, thumbnail(encode_jpeg(texture(1)))) == 0.0


def test_thumbnails_have_one_shape_and_damaged_images_are_refused() -> None:
    wide = as_pixels(cv2.resize(texture(1), (300, 40)))
    assert thumbnail(encode_jpeg(wide)).shape == (SIDE, SIDE)
    with pytest.raises(ValueError, match="no JPEG"):
        thumbnail(b"no picture")


def test_likeness_hardly_depends_on_which_is_laid_over_which() -> None:
    one = thumbnail(encode_jpeg(portrait(2)))
    other = thumbnail(CHANGES["all"](portrait(2)))
    assert likeness(one, other) == pytest.approx(likeness(other, one), abs=0.02)
