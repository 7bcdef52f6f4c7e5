"""Every odd photograph is decoded as a person would see it."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from retrieval.images.pixels import decode, grey, image_size, limit_threads, resize, stored_size, upright_size
from tests.support.decoding import PHONE, avif, decoded, saved, smooth
from tests.support.photos import png_header, portrait

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_decode_exactly(kind: str) -> None:
    pixels = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert np.array_equal(decoded(saved(Image.fromarray(pixels), kind)), pixels)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_decode_nearly(kind: str) -> None:
    pixels = smooth(64, 80)
    assert np.abs(decoded(saved(Image.fromarray(pixels), kind, quality=95)).astype(int) - pixels).max() <= 12


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_and_palette_become_rgb(mode: str) -> None:
    image = Image.fromarray(smooth(32, 32)).convert(mode)
    assert np.array_equal(decoded(saved(image, "PNG")), np.asarray(image.convert("RGB")))


def test_16_bit_png_is_scaled_not_clipped() -> None:
    deep = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels = decoded(saved(Image.fromarray(deep), "PNG"))
    assert np.array_equal(pixels[:, :, 0], (deep // 256).astype(np.uint8))
    assert np.array_equal(pixels[:, :, 0], pixels[:, :, 2])
    assert np.unique(pixels).size == 256  # a clipped one is nearly all white


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bit_tiff_of_either_byte_order_is_scaled(order: str) -> None:
    deep = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(order)
    assert np.array_equal(decoded(saved(Image.fromarray(deep), "TIFF"))[:, :, 1], (deep // 256).astype(np.uint8))


def test_16_bit_rgb_png() -> None:
    deep = RNG.integers(0, 65536, (32, 32, 3), dtype=np.uint16)
    done, data = cv2.imencode(".png", deep[:, :, ::-1])
    assert done
    assert np.abs(decoded(data.tobytes()).astype(int) - deep // 256).max() <= 1


@pytest.mark.parametrize(
    ("ink", "colour"),
    [
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 0, 0), (255, 0, 255)),
        ((0, 0, 255, 0), (255, 255, 0)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0, 0, 0, 0), (255, 255, 255)),
    ],
)
def test_cmyk_jpeg_gives_the_colour_of_its_ink(ink: tuple[int, ...], colour: tuple[int, ...]) -> None:
    data = saved(Image.new("CMYK", (32, 32), ink), "JPEG", quality=98)
    assert b"Adobe" in data  # written inverted, as Photoshop does
    assert np.abs(decoded(data)[16, 16].astype(int) - colour).max() <= 4


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "lime", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100, loop=0)
    assert decoded(data)[15, 20].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_transparency_is_laid_over_white(kind: str) -> None:
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 16, 32))
    pixels = decoded(saved(image, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert pixels[5, 25].tolist() == [255, 255, 255]
    assert pixels[5, 5].tolist() == [200, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_undone(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(smooth(48, 64)), kind, exif=exif, **({"quality": 98} if kind == "JPEG" else {}))
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert wanted.shape[:2] == ((64, 48) if orientation > 4 else (48, 64))
    assert np.array_equal(decoded(data), wanted)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow's own complaint, which a job shows in its log
def test_a_broken_exif_block_does_not_lose_the_photo() -> None:
    data = saved(Image.fromarray(smooth(32, 48)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert decoded(data).shape == (32, 48, 3)


@pytest.mark.parametrize(
    ("reduce_to", "reduction"), [(None, 1), (640, 1), (321, 1), (320, 2), (160, 4), (100, 4), (80, 8), (1, 8)]
)
def test_reduced_decode_stays_above_the_size_asked_for(reduce_to: int | None, reduction: int) -> None:
    photo = smooth(640, 801)
    data = saved(Image.fromarray(photo), "JPEG", quality=95)
    pixels, found = decode(data, max_pixels=10**7, min_side=16, reduce_to=reduce_to)
    assert found == reduction
    assert pixels.shape == (-(-640 // reduction), -(-801 // reduction), 3)
    assert min(pixels.shape[:2]) >= min(reduce_to or 640, 640)
    whole = resize(photo, pixels.shape[1], pixels.shape[0])
    assert np.abs(pixels.astype(int) - whole).mean() < 4


def test_reduction_of_a_turned_photo_and_of_a_format_that_has_none() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(smooth(400, 800)), "JPEG", exif=exif)
    pixels, reduction = decode(data, max_pixels=10**7, min_side=16, reduce_to=100)
    assert (pixels.shape, reduction) == ((200, 100, 3), 4)
    tiff = saved(Image.fromarray(smooth(400, 800)), "TIFF", exif=exif)
    pixels, reduction = decode(tiff, max_pixels=10**7, min_side=16, reduce_to=100)
    assert (pixels.shape, reduction) == ((800, 400, 3), 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_told_from_the_header(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(smooth(48, 64)), "JPEG", exif=exif)
    assert image_size(data) == (64, 48)
    assert upright_size(data) == stored_size(data) == ((48, 64) if orientation > 4 else (64, 48))
    assert decoded(data).shape[1::-1] == upright_size(data)
    assert image_size(png_header(7000, 6000)) == (7000, 6000)  # hardly a pixel is there


def test_grey_is_the_luma_of_rgb() -> None:
    photo = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.abs(grey(photo) - photo @ np.array([0.299, 0.587, 0.114])).max() <= 1
    assert grey(photo).shape == (20, 30) and grey(photo).dtype == np.uint8


def test_threads_of_opencv_are_what_is_asked_for() -> None:
    before = cv2.getNumThreads()
    try:
        limit_threads(1)
        assert cv2.getNumThreads() == 1
    finally:
        limit_threads(before)


@pytest.mark.parametrize("name", ["portrait", "turned", "deep"])
def test_photos_of_phones_are_read_upright_in_8_bits(name: str) -> None:
    """HEIC: as it is, stored lying with its rotation beside it, and of 10 bits. Made as tests/data/README.md says."""
    data = (PHONE / f"{name}.heic").read_bytes()
    image, reduction = decode(data, reduce_to=20)
    assert (image.shape, image.dtype, reduction) == ((218, 178, 3), np.uint8, 1)
    assert np.abs(image.astype(int) - portrait(4)).mean() < 4
    assert upright_size(data) == image_size(data) == (178, 218)


def test_avif_is_read_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    for data in (avif(portrait(4)), avif(np.ascontiguousarray(np.rot90(portrait(4), -1)), exif=exif)):
        assert upright_size(data) == (178, 218)
        assert np.abs(decode(data)[0].astype(int) - portrait(4)).mean() < 4
