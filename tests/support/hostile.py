"""Photos that somebody sends to see what happens: good ones of every format, and what can be done to them."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.support.photos import png_header

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


def picture(side: int = 64, seed: int = 0) -> Image.Image:
    """Coloured patches."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return small.resize((side, side), Image.Resampling.BICUBIC)


def written(kind: str, *, progressive: bool = False, frames: int = 1, side: int = 64) -> bytes:
    """A good photo of this format."""
    out = io.BytesIO()
    more = [picture(side, seed) for seed in range(1, frames)]
    options = {"save_all": True, "append_images": more} if more else {}
    if progressive:
        options["progressive"] = True
    picture(side).save(out, kind, **options)
    return out.getvalue()


def scan_bomb(scans: int, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan comes so many times more."""
    data = written("JPEG", progressive=True, side=side)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (scans + 1) + data[-2:]


def nested_tiff() -> bytes:
    """A TIFF whose directory names itself as the next one."""
    data = bytearray(written("TIFF"))
    order = "<" if data[:2] == b"II" else ">"
    (place,) = struct.unpack_from(f"{order}I", data, 4)
    (num,) = struct.unpack_from(f"{order}H", data, place)
    struct.pack_into(f"{order}I", data, place + 2 + 12 * num, place)
    return bytes(data)


def with_garbage(kind: str, rng: np.random.Generator) -> bytes:
    """A JPEG or PNG whose EXIF or ICC profile is noise."""
    out, noise = io.BytesIO(), rng.integers(0, 256, 500, dtype=np.uint8).tobytes()
    options = {"exif": b"Exif\0\0" + noise} if rng.integers(2) else {"icc_profile": noise}
    picture().save(out, kind, **options)
    return out.getvalue()


def mutated(num: int, seed: int = 0) -> Iterator[bytes]:
    """So many photos, each good once: cut off, bits turned, pieces doubled, lost, or filled with 0x00 or 0xff."""
    rng = np.random.default_rng(seed)
    good = [written(kind) for kind in FORMATS]
    good += [
        written("JPEG", progressive=True),
        written("PNG", frames=3),
        written("WEBP", frames=3),
        written("GIF", frames=3),
    ]
    special = [scan_bomb(200), png_header(60_000, 60_000), nested_tiff(), b"", b"\xff\xd8\xff", written("JPEG")[:300]]
    for number in range(num):
        if number % 10 == 9:
            kind = ("JPEG", "PNG", "WEBP")[number // 10 % 3]
            yield special[number // 10 % len(special)] if number % 20 == 9 else with_garbage(kind, rng)
            continue
        yield _mutate(bytearray(good[number % len(good)]), rng)


def _mutate(data: bytearray, rng: np.random.Generator) -> bytes:
    for _ in range(int(rng.integers(1, 6))):
        if not data:
            break
        place, length = int(rng.integers(len(data))), int(rng.integers(1, 64))
        how = int(rng.integers(6))
        if how == 0:
            del data[place:]
        elif how == 1:
            data[place] ^= 1 << int(rng.integers(8))
        elif how == 2:
            data[place:place] = data[place : place + length]
        elif how == 3:
            del data[place : place + length]
        else:
            data[place : place + length] = bytes([0xFF * (how == 4)]) * length
    return bytes(data)
