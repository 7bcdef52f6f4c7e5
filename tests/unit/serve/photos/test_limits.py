"""What is refused before a pixel is decoded."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from serve.photos.limits import Caps, count_png_frames, count_scans, count_webp_frames, format_of, not_taken, too_much
from tests.support.hostile import FORMATS, scan_bomb, written


@pytest.mark.parametrize("kind", FORMATS)
def test_a_format_is_known_by_its_first_bytes(kind: str) -> None:
    assert format_of(written(kind)) == kind


@pytest.mark.parametrize(
    "data", [b"", b"P", b"P9 1 1", b"hello, I am no photo", b"RIFF0000WAVE", b"\xff\xd8", b"<svg/>"]
)
def test_what_is_no_photo_has_no_format(data: bytes) -> None:
    assert format_of(data) is None
    assert "taken here: JPEG, PNG" in (not_taken(data, ("JPEG", "PNG")) or "")


def test_only_formats_that_were_chosen_are_taken() -> None:
    assert not_taken(written("GIF"), ("JPEG", "GIF")) is None
    assert not_taken(written("GIF"), ("JPEG",)) == "a GIF; taken here: JPEG"


def test_scans_are_counted_and_those_of_a_thumbnail_are_not() -> None:
    plain, progressive = written("JPEG"), written("JPEG", progressive=True)
    assert count_scans(plain) == 1
    assert 2 < count_scans(progressive) <= 12
    inside = b"\xff\xe1" + (len(progressive) + 2).to_bytes(2, "big") + progressive
    assert count_scans(plain[:2] + inside + plain[2:]) == 1
    assert count_scans(plain + progressive) == 1, "what follows the end is another file"
    for cut in range(0, len(plain), 7):
        assert count_scans(plain[:cut]) <= 1


def test_filled_up_and_stuffed_bytes_are_no_markers() -> None:
    assert count_scans(b"\xff\xd8\xff\xff\xff\xda\x00\x02\xff\x00\xda\xff\xd0\xff\xda\x00\x02") == 2


def test_a_scan_bomb_is_refused_by_its_scans_or_by_its_pixels() -> None:
    bomb = scan_bomb(60)
    assert count_scans(bomb) > 60
    assert count_scans(bomb, enough=5) == 5
    size = Image.open(io.BytesIO(bomb)).size
    assert too_much(bomb, size, Caps(scans=59)) is not None
    assert too_much(bomb, size, Caps(scans=1000)) is None, "the photo is small: 60 scans of it cost little"
    found = too_much(bomb, (7000, 7000), Caps(scans=1000))
    assert found is not None and found[0] == "too-many-scans" and "the limit is 12" in found[1]
    assert too_much(written("JPEG", progressive=True), (7000, 7000), Caps()) is None


def test_frames_are_counted() -> None:
    for kind, count in (("PNG", count_png_frames), ("WEBP", count_webp_frames)):
        assert count(written(kind)) == 1
        moving = written(kind, frames=5)
        assert count(moving) == 5
        assert too_much(moving, (64, 64), Caps(frames=5)) is None
        assert too_much(moving, (64, 64), Caps(frames=4)) == ("too-many-frames", "5 frames, the limit is 4")
        for cut in range(len(moving)):
            assert count(moving[:cut]) <= 5


def test_any_bytes_can_be_counted() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        tail = rng.integers(0, 256, 300, dtype=np.uint8).tobytes()
        for head in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPVP8X"):
            too_much(head + tail, (100, 100), Caps())
