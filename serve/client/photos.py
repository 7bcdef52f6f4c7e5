"""What is taken for a photo: its bytes, or where it is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

PhotoLike = bytes | str | os.PathLike[str]
"""The bytes of a photo, or the path of its file."""


class NamedPhoto(NamedTuple):
    """A photo with the name that it goes by."""

    name: str
    data: bytes


def read_photo(photo: PhotoLike) -> bytes:
    """Raises: OSError if it is a path that cannot be read."""
    return photo if isinstance(photo, bytes) else Path(photo).read_bytes()


def name_of(photo: PhotoLike, default: str) -> str:
    return default if isinstance(photo, bytes) else Path(photo).name


def named_photos(photos: Iterable[PhotoLike | NamedPhoto]) -> list[NamedPhoto]:
    """Photos without a name go by their place, from 0."""
    found = []
    for place, photo in enumerate(photos):
        if isinstance(photo, NamedPhoto):
            found.append(photo)
        else:
            found.append(NamedPhoto(name_of(photo, str(place)), read_photo(photo)))
    return found
