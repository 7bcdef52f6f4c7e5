"""What is known of an image of the gallery, wherever it lies; what a search finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Where = Literal["sealed", "live"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """An image of the gallery, without its pixels.

    attributes: name -> 1 it is so, -1 it is not, 0 nobody said; None: nothing was said. width, height: of the stored
    crop, pixels. original: whether the photo is kept as it was sent. seq: of the change that added it, 0 if sealed.
    """

    image_id: str
    label: str | None
    split: str | None
    person: int | None
    attributes: Mapping[str, int] | None
    added: datetime | None
    where: Where
    photo: str
    face: int | None
    width: int
    height: int
    content_hash: str = ""
    original: bool = False
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Hit:
    """An image that was found. `score` is the inner product with the query.

    row: of the sealed index, None for an image that was added since. added: when, None for what was sealed from photos.
    """

    image_id: str
    score: float
    label: str | None = None
    row: int | None = None
    split: str | None = None
    person: int | None = None
    added: datetime | None = None
    photo: str = ""
    face: int | None = None
    where: Where = "sealed"

    @classmethod
    def of(cls, entry: Entry, score: float) -> Hit:
        """A live image."""
        told = {name: getattr(entry, name) for name in ("label", "split", "person", "added", "photo", "face", "where")}
        return cls(image_id=entry.image_id, score=score, **told)


def photo_of(image_id: str, face: int | None) -> str:
    """The photo that an image is of: of a face among all of a photo, what stands before its number."""
    return image_id if face is None else image_id.rpartition("#")[0] or image_id
