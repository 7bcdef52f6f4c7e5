"""What is no photo, is cut short or would fill the memory is refused, and the reason says which."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from retrieval.images.pixels import BadImage, decode
from tests.support.decoding import PHONE, avif, decoded, reason_of, saved, smooth
from tests.support.photos import png_header, portrait

RNG = np.random.default_rng(0)


def test_refusals() -> None:
    photo = saved(Image.fromarray(smooth(200, 300)), "JPEG")
    assert reason_of(b"") == "empty"
    assert reason_of(b"this is no photograph\n" * 20) == "not-an-image"
    assert reason_of(photo, max_pixels=59_999) == "too-large"
    assert decoded(photo, max_pixels=60_000).shape == (200, 300, 3)
    assert reason_of(photo, min_side=201) == "too-small"
    assert reason_of(saved(Image.fromarray(np.zeros((32, 32), np.float32)), "TIFF")) == "unreadable"


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_cut_short_is_refused_not_shown_grey(kept: float, kind: str) -> None:
    data = saved(Image.fromarray(RNG.integers(0, 256, (120, 160, 3), dtype=np.uint8)), kind)
    assert reason_of(data[: int(len(data) * kept)]) in ("truncated", "unreadable", "not-an-image")
    if kind == "JPEG":
        assert reason_of(data[: int(len(data) * kept)], reduce_to=20) == "truncated"


@pytest.mark.parametrize("side", [8000, 10_000, 60_000, 2_000_000_000])
def test_a_decompression_bomb_is_refused_on_its_header(side: int) -> None:
    assert reason_of(png_header(side, side)) == "too-large"
    with pytest.raises(BadImage):
        decoded(png_header(side, side)[:33])  # nothing but the header


def test_a_photo_that_promises_more_than_it_brings_is_refused() -> None:
    assert reason_of(png_header(7000, 7000)) in ("truncated", "unreadable")


@pytest.mark.parametrize("kind", ["ICO", "TGA", "ICNS", "PCX"])
def test_formats_that_no_camera_writes_are_not_opened(kind: str) -> None:
    """Each of Pillow's readers is a way in for hostile files; only those of FORMATS are tried."""
    data = saved(Image.fromarray(smooth(32, 32)), kind)
    Image.open(io.BytesIO(data)).load()
    assert reason_of(data) == "not-an-image"


def test_limits_hold_at_the_last_value_and_the_detail_names_them() -> None:
    photo = saved(Image.fromarray(smooth(200, 300)), "JPEG")
    assert decoded(photo, min_side=200).shape == (200, 300, 3)
    with pytest.raises(BadImage, match="too-small: 300 x 200 pixels, the short side must be at least 201"):
        decode(photo, min_side=201)
    with pytest.raises(BadImage, match="too-large: 300 x 200 pixels, the limit is 59999 pixels"):
        decode(photo, max_pixels=59_999)
    # What a query or a source may hold, where nobody says otherwise.
    assert reason_of(png_header(7072, 7071)) == "too-large"
    assert reason_of(png_header(15, 100)) == "too-small"


def test_the_reason_tells_a_cut_file_from_a_broken_one() -> None:
    photo = saved(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG")
    assert reason_of(photo[: len(photo) // 2]) == "truncated"
    assert reason_of(b"\x89PNG\r\n\x1a\n" + bytes(60)) in ("unreadable", "not-an-image")
    deep = np.zeros((20, 20), np.int32)
    with pytest.raises(BadImage, match="unreadable: ValueError: pixels of type I .*no fixed white level"):
        decode(saved(Image.fromarray(deep), "TIFF"))


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
