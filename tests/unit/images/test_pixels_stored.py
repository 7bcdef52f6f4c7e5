"""What is resized and stored has the size, the shape and the quality that were asked for, and is read back."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from retrieval.images.pixels import (
    decode_fit,
    decode_stored,
    decode_whole,
    encode_jpeg,
    fit,
    fitted,
    image_size,
    resize,
    stored_size,
)
from tests.support.decoding import decoded, saved, smooth

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("quality", [50, 80, 95])
def test_a_jpeg_has_the_quality_asked_for_and_coarser_colour(quality: int) -> None:
    ours = Image.open(io.BytesIO(encode_jpeg(smooth(64, 64), quality)))
    theirs = Image.open(io.BytesIO(saved(Image.fromarray(smooth(64, 64)), "JPEG", quality=quality)))
    assert ours.quantization == theirs.quantization  # type: ignore[attr-defined]
    assert [layer[1:3] for layer in ours.layer] == [(2, 2), (1, 1), (1, 1)]  # type: ignore[attr-defined]
    usual = Image.open(io.BytesIO(encode_jpeg(smooth(64, 64))))
    assert (usual.quantization == ours.quantization) == (quality == 95)  # type: ignore[attr-defined]


def test_the_fitted_size_is_what_fit_gives_however_thin() -> None:
    for height, width in ((30, 40), (3, 300), (300, 3), (41, 40), (7, 7)):
        made = fit(smooth(height, width), 20)
        assert made.shape[1::-1] == fitted(width, height, 20)
        assert min(made.shape[:2]) >= 1
    assert fitted(1600, 1200, 100) == (100, 75) and fitted(1200, 1600, 100) == (75, 100)
    assert fitted(50, 20, 100) == (50, 20)


def test_stored_round_trip_equals_pillow() -> None:
    pixels = smooth(218, 218)
    jpeg = encode_jpeg(pixels)
    assert image_size(jpeg) == (218, 218)
    assert np.array_equal(decode_stored(jpeg, 218), decoded(jpeg))
    assert np.abs(decode_stored(jpeg, 218).astype(int) - pixels).mean() < 2
    assert decode_stored(jpeg, 160).shape == (160, 160, 3)


@pytest.mark.parametrize("data", [b"", b"no jpeg"])
def test_a_damaged_stored_image_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="collection is damaged"):
        decode_stored(data, 218)
    with pytest.raises(ValueError, match="collection is damaged"):
        decode_fit(data, 218)
    with pytest.raises(ValueError, match="collection is damaged"):
        stored_size(data)


@pytest.mark.parametrize(
    ("shape", "long_side", "expected"),
    [
        ((60, 80), 40, (30, 40)),
        ((80, 61), 40, (40, 30)),  # 30.5: halves to even
        ((60, 80), 80, (60, 80)),
        ((60, 80), 1024, (60, 80)),  # never enlarged
        ((3, 3), 40, (3, 3)),
        ((1, 300), 40, (1, 40)),
    ],
)
def test_fit_keeps_the_aspect_and_never_enlarges(
    shape: tuple[int, int], long_side: int, expected: tuple[int, int]
) -> None:
    jpeg = encode_jpeg(smooth(*shape))
    got = decode_fit(jpeg, long_side)
    assert got.shape == (*expected, 3) and got.dtype == np.uint8
    assert stored_size(jpeg) == (shape[1], shape[0])
    if expected == shape:
        assert np.array_equal(got, decode_whole(jpeg))


def test_fit_is_the_mean_over_each_pixel_s_area() -> None:
    jpeg = encode_jpeg(RNG.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    whole = decode_whole(jpeg).astype(float)
    expected = np.array(
        [[whole[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean((0, 1)) for j in range(24)] for i in range(16)]
    )
    assert np.abs(decode_fit(jpeg, 24) - expected).max() <= 0.51


def test_what_grows_is_drawn_smoothly() -> None:
    """Area averaging would repeat pixels: steps of 4 equal ones. Bicubic goes through a ramp evenly."""
    steps = np.repeat(np.arange(0, 160, 10, dtype=np.uint8)[None, :, None], 16, axis=0).repeat(3, axis=2)
    grown = resize(steps, 64, 64)[32, 8:56, 0].astype(int)
    assert (np.diff(grown) > 0).all() and np.diff(grown).max() <= 4
    taller = resize(steps, 12, 64)  # grows one way and shrinks the other
    assert taller.shape == (64, 12, 3)


def test_resize_is_antialiased_and_keeps_the_mean() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.all(resize(stripes, 16, 16) == 100)  # plain subsampling would give 0 or 200
    assert resize(stripes, 64, 64) is stripes
    assert resize(stripes, 100, 90).shape == (90, 100, 3)
