"""Pictures as files of any format, and what decoding makes of them: pixels, or the reason of a refusal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval.images.pixels import BadImage, decode

PHONE = Path(__file__).resolve().parents[1] / "data" / "photos"
"""Photos as phones write them; tests/data/README.md says how they were made."""


def decoded(data: bytes, **options: Any) -> np.ndarray:
    """(height, width, 3) uint8 RGB."""
    return decode(data, **options)[0]


def reason_of(data: bytes, **options: Any) -> str:
    """What the file is refused for. Fails if it is taken, or if the refusal has no detail."""
    with pytest.raises(BadImage) as caught:
        decoded(data, **options)
    assert caught.value.detail
    return caught.value.reason


def smooth(height: int, width: int) -> np.ndarray:
    """A picture whose four corners differ, with no fine detail, so that JPEG changes it little."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, 255 * (1 - x / width)], axis=2).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image's file, of a format that Pillow writes."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def avif(image: np.ndarray, **options: Any) -> bytes:
    """image: (height, width, 3) uint8 RGB."""
    return saved(Image.fromarray(image), "AVIF", **options)
