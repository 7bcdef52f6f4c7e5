"""What is refused before a pixel is decoded: formats nobody asked for, and files that cost far more than their size.

A progressive JPEG is decoded once for every scan in it, and a scan may be 75 bytes long: 60 of them on a large photo
hold a core for seconds. Scans are counted by walking through the file's markers, which costs a search of its bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_START_OF_SCAN = 0xDA
_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # TEM, RST0..7, SOI: no length follows
_SCANS_OF_A_CAMERA = 12
"""A progressive photo of the largest size may have so many scans; a smaller one more, up to the limit on scans."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Caps:
    """formats: as `format_of` names them. scans: of a JPEG. frames: of a PNG or WebP. pixels: width x height."""

    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP")
    scans: int = 100
    frames: int = 100
    pixels: int = 50_000_000


def format_of(data: bytes) -> str | None:
    """What a file says it is by its first bytes; None: nothing that is known here."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return "AVIF" if data[8:12] in (b"avif", b"avis") else "HEIF"
    if data[:1] == b"P" and data[1:2] in b"123456fFy" and len(data) > 1:
        return "PPM"
    return next((name for magic, name in _MAGIC if data.startswith(magic)), None)


def too_much(data: bytes, size: tuple[int, int], caps: Caps) -> tuple[str, str] | None:
    """(reason, detail) of what makes a file too dear to decode; None: nothing does.

    Args: size: (width, height) of its header.
    """
    kind = format_of(data)
    if kind == "JPEG":
        # Where the two bytes do not come so often at all, as nearly always, the file needs no walk.
        least = min(caps.scans, max(1, _SCANS_OF_A_CAMERA * caps.pixels // max(1, size[0] * size[1])))
        if data.count(bytes((0xFF, _START_OF_SCAN))) > least and (scans := count_scans(data, least + 1)) > least:
            return (
                "too-many-scans",
                f"more than {scans - 1} scans in {size[0]} x {size[1]} pixels, the limit is {least}",
            )
    frames = {"PNG": count_png_frames, "WEBP": count_webp_frames}.get(kind or "", _one)(data)
    if frames > caps.frames:
        return "too-many-frames", f"{frames} frames, the limit is {caps.frames}"
    return None


def count_scans(data: bytes, enough: int = 1 << 30) -> int:
    """Scans of a JPEG, those of a thumbnail inside its segments not counted. Stops at `enough`."""
    place, scans = 2, 0
    while scans < enough:
        place = data.find(b"\xff", place)
        if place < 0 or place + 1 >= len(data):
            return scans
        marker = data[place + 1]
        if marker in (0x00, 0xFF) or marker in _STANDALONE:  # stuffed, filled up, or without a length
            place += 1 if marker == 0xFF else 2
            continue
        if marker == 0xD9:  # what follows the end is another file's: phones append videos
            return scans
        scans += marker == _START_OF_SCAN
        place += 2 + max(2, int.from_bytes(data[place + 2 : place + 4], "big"))
    return scans


def count_png_frames(data: bytes) -> int:
    """Frames that a PNG announces (acTL); 1 if it is not animated."""
    place = 8
    while 0 <= place < len(data) - 12:
        length, name = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if name == b"acTL":
            return max(1, int.from_bytes(data[place + 8 : place + 12], "big"))
        if name == b"IDAT":  # an animation is announced before the pixels
            return 1
        place += length + 12
    return 1


def count_webp_frames(data: bytes) -> int:
    """Frames of a WebP (ANMF chunks); 1 if it is not animated."""
    if data[12:16] != b"VP8X" or len(data) < 21 or not data[20] & 0x02:
        return 1
    place, frames = 12, 0
    while place < len(data) - 8:
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        frames += data[place : place + 4] == b"ANMF"
        place += 8 + length + (length & 1)
    return max(1, frames)


def not_taken(data: bytes, formats: Sequence[str]) -> str | None:
    """Why a file is of no format that is taken; None: it is."""
    kind = format_of(data)
    if kind in formats:
        return None
    begins = f"a {kind}" if kind else f"{len(data)} bytes beginning with {data[:8]!r}"
    return f"{begins}; taken here: {', '.join(formats)}"


def _one(_: bytes) -> int:
    return 1
