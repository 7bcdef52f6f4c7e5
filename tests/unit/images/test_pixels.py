"""Every odd photograph is decoded as a person would see it, or refused with a reason."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from retrieval.images.pixels import (
    BadImage,
    decode,
    decode_fit,
    decode_stored,
    decode_whole,
    encode_jpeg,
    fit,
    fitted,
    grey,
    image_size,
    limit_threads,
    resize,
    stored_size,
    upright_size,
)
from tests.support.photos import png_header, portrait

RNG = np.random.default_rng(0)


def decoded(data: bytes, **options: Any) -> np.ndarray:
    return decode(data, **options)[0]


def smooth(height: int, width: int) -> np.ndarray:
    """A picture whose four corners differ, with no fine detail, so that JPEG changes it little."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, 255 * (1 - x / width)], axis=2).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def reason(data: bytes, **options: Any) -> str:
    with pytest.raises(BadImage) as caught:
        decoded(data, **options)
    assert caught.value.detail
    return caught.value.reason


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


def test_refusals() -> None:
    photo = saved(Image.fromarray(smooth(200, 300)), "JPEG")
    assert reason(b"") == "empty"
    assert reason(b"this is no photograph\n" * 20) == "not-an-image"
    assert reason(photo, max_pixels=59_999) == "too-large"
    assert decoded(photo, max_pixels=60_000).shape == (200, 300, 3)
    assert reason(photo, min_side=201) == "too-small"
    assert reason(saved(Image.fromarray(np.zeros((32, 32), np.float32)), "TIFF")) == "unreadable"


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_cut_short_is_refused_not_shown_grey(kept: float, kind: str) -> None:
    data = saved(Image.fromarray(RNG.integers(0, 256, (120, 160, 3), dtype=np.uint8)), kind)
    assert reason(data[: int(len(data) * kept)]) in ("truncated", "unreadable", "not-an-image")
    if kind == "JPEG":
        assert reason(data[: int(len(data) * kept)], reduce_to=20) == "truncated"


@pytest.mark.parametrize("side", [8000, 10_000, 60_000, 2_000_000_000])
def test_a_decompression_bomb_is_refused_on_its_header(side: int) -> None:
    assert reason(png_header(side, side)) == "too-large"
    with pytest.raises(BadImage):
        decoded(png_header(side, side)[:33])  # nothing but the header


def test_a_photo_that_promises_more_than_it_brings_is_refused() -> None:
    assert reason(png_header(7000, 7000)) in ("truncated", "unreadable")


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


@pytest.mark.parametrize("kind", ["ICO", "TGA", "ICNS", "PCX"])
def test_formats_that_no_camera_writes_are_not_opened(kind: str) -> None:
    """Each of Pillow's readers is a way in for hostile files; only those of FORMATS are tried."""
    data = saved(Image.fromarray(smooth(32, 32)), kind)
    Image.open(io.BytesIO(data)).load()
    assert reason(data) == "not-an-image"


def test_limits_hold_at_the_last_value_and_the_detail_names_them() -> None:
    photo = saved(Image.fromarray(smooth(200, 300)), "JPEG")
    assert decoded(photo, min_side=200).shape == (200, 300, 3)
    with pytest.raises(BadImage, match="too-small: 300 x 200 pixels, the short side must be at least 201"):
        decode(photo, min_side=201)
    with pytest.raises(BadImage, match="too-large: 300 x 200 pixels, the limit is 59999 pixels"):
        decode(photo, max_pixels=59_999)
    # What a query or a source may hold, where nobody says otherwise.
    assert reason(png_header(7072, 7071)) == "too-large"
    assert reason(png_header(15, 100)) == "too-small"


def test_the_reason_tells_a_cut_file_from_a_broken_one() -> None:
    photo = saved(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG")
    assert reason(photo[: len(photo) // 2]) == "truncated"
    assert reason(b"\x89PNG\r\n\x1a\n" + bytes(60)) in ("unreadable", "not-an-image")
    deep = np.zeros((20, 20), np.int32)
    with pytest.raises(BadImage, match="unreadable: ValueError: pixels of type I .*no fixed white level"):
        decode(saved(Image.fromarray(deep), "TIFF"))


@pytest.mark.parametrize("quality", [50, 80, 95])
def test_a_jpeg_has_the_quality_asked_for_and_coarser_colour(quality: int) -> None:
    ours = Image.open(io.BytesIO(encode_jpeg(smooth(64, 64), quality)))
    theirs = Image.open(io.BytesIO(saved(Image.fromarray(smooth(64, 64)), "JPEG", quality=quality)))
    assert ours.quantization == theirs.quantization  # type: ignore[attr-defined]
    assert [layer[1:3] for layer in ours.layer] == [(2, 2), (1, 1), (1, 1)]  # type: ignore[attr-defined]
    usual = Image.open(io.BytesIO(encode_jpeg(smooth(64, 64))))
    assert (usual.quantization == ours.quantization) == (quality == 95)  # type: ignore[attr-defined]


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


PHONE = Path(__file__).resolve().parents[2] / "data" / "photos"


def avif(image: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "AVIF", **options)
    return stream.getvalue()


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


def test_a_container_s_size_is_checked_before_its_pixels_and_they_must_be_as_many() -> None:
    heic = (PHONE / "portrait.heic").read_bytes()
    for data in (heic, avif(portrait(4))):
        with pytest.raises(BadImage, match="too-large: 178 x 218 pixels"):
            decode(data, max_pixels=178 * 218 - 1)
        with pytest.raises(BadImage, match="too-small"):
            decode(data, min_side=179)
    at = heic.find(b"ispe") + 8
    for side, reason in ((60_000, "too-large"), (9_000, "too-large"), (30, "unreadable")):
        lies = heic[:at] + struct.pack(">II", side, side) + heic[at + 8 :]
        with pytest.raises(BadImage, match=f"{reason}:"):
            decode(lies)


@pytest.mark.parametrize("part", [10, 30, 200, 5_000, -200])
def test_a_container_that_ends_too_early_is_refused(part: int) -> None:
    for data in ((PHONE / "portrait.heic").read_bytes(), avif(portrait(4))):
        with pytest.raises(BadImage):
            decode(data[:part])
    with pytest.raises(BadImage, match="not-an-image"):
        decode(b"\0\0\0\x18ftypmp42" + bytes(100))  # a film


@pytest.mark.parametrize("method", ["load", "convert"])
def test_a_machine_without_memory_is_no_fault_of_the_photo(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = io.BytesIO()
    Image.new("L", (40, 40)).save(grey, "PNG")

    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image if method == "convert" else PngImagePlugin.PngImageFile, method, fails)
    with pytest.raises(MemoryError):
        decode(grey.getvalue())
