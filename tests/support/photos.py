"""Photographs for tests: drawn portraits, and files with all that is wrong with real ones."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from retrieval.data.demo.people import sample_person, sample_shot
from retrieval.data.demo.portrait import render
from retrieval.images.pixels import encode_jpeg
from retrieval.models.known_weights import find


def portrait(identity: int, size: tuple[int, int] = (178, 218), shot: int = 0) -> np.ndarray:
    """(height, width, 3) uint8 RGB; size: (width, height)."""
    person = sample_person(0, identity)
    return render(person, sample_shot(0, identity, shot, person), size)


@functools.cache
def yunet() -> bytes:
    """The detector's network; a development package brings it."""
    found = find("yunet")
    assert found is not None, "YuNet is not here: run make setup"
    return found.read_bytes()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises width x height pixels and brings hardly any."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"\0" * 100))
    packed = [struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def awkward(folder: Path) -> dict[str, str | None]:
    """Real-life photographs of two people and one seen once; name -> reason it is rejected for, None: stored."""
    folder.mkdir(parents=True)
    face = encode_jpeg(portrait(0))
    cmyk, deep, moving = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.fromarray(portrait(0, shot=1)).convert("CMYK").save(cmyk, "JPEG", quality=95)
    grey = np.asarray(Image.fromarray(portrait(0, shot=2)).convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(deep, "PNG")
    frames = [Image.fromarray(portrait(1, shot=shot)) for shot in (0, 1)]
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    files: dict[str, tuple[bytes, str | None]] = {
        "ann/1.jpg": (face, None),
        "ann/2 copy of 1.jpg": (face, None),
        "ann/cmyk.jpg": (cmyk.getvalue(), None),
        "ann/deep.png": (deep.getvalue(), None),
        "ann/cut.jpg": (face[: len(face) // 2], "truncated"),
        "b\u00f6 lee/\u5199\u771f 1.gif": (moving.getvalue(), None),
        "b\u00f6 lee/2.jpg": (encode_jpeg(portrait(1, shot=2)), None),
        "b\u00f6 lee/empty.jpg": (b"", "empty"),
        "b\u00f6 lee/text.jpg": (b"Not a photograph at all.\n", "not-an-image"),
        "b\u00f6 lee/wall.jpg": (encode_jpeg(np.full((218, 178, 3), 99, np.uint8)), "no-face"),
        "cy/bomb.png": (png_header(60_000, 60_000), "too-large"),
        "cy/only.jpg": (encode_jpeg(portrait(2)), None),
        "cy/tiny.png": (encode_jpeg(np.zeros((8, 8, 3), np.uint8)), "too-small"),
    }
    for name, (data, _) in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    (folder / "cy" / "dead.jpg").symlink_to("nowhere.jpg")
    return {name: reason for name, (_, reason) in files.items()} | {"cy/dead.jpg": "missing"}


def touch(folder: Path, *names: str) -> Path:
    """Files that are photographs by their names, which listing never opens. Each holds its own name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder
