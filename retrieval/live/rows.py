"""An image that was added: as it is given to the store, and as it is read back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from retrieval.data.layouts.celeba import ATTRIBUTES
from retrieval.live.entries import Entry

LIVE_SPLIT = "gallery"
"""The split of what is added: it is searched, and never trained on or asked with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewImage:
    """An image of a photo that is added.

    jpeg: the stored crop, of width x height pixels. vector: (D,) float32, unit norm. content_hash: sha256 hex of the
    photo's bytes. prepared: how it was cut (`preparation_key`): only a model that wants it so may embed it again.
    """

    image_id: str
    photo: str
    jpeg: bytes
    width: int
    height: int
    content_hash: str
    vector: np.ndarray
    label: str | None = None
    attributes: Mapping[str, int] | None = None
    face: int | None = None
    box: Sequence[float] | None = None
    points: Sequence[float] | None = None
    quality: Mapping[str, float | None] | None = None
    prepared: str = ""
    split: str = LIVE_SPLIT


@dataclass(frozen=True, slots=True)
class LiveRow:
    """An image of the store without its pixels. vector: (D,) float32; None where this model has not embedded it."""

    entry: Entry
    vector: np.ndarray | None = field(compare=False)
    box: Sequence[float] | None
    points: Sequence[float] | None
    quality: Mapping[str, float | None] | None
    prepared: str


_CUT = ("crop", "margin", "size")


def preparation_key(preparation: Mapping[str, Any]) -> str:
    """What of a preparation says how a crop looks: a model may embed only crops that are cut as it wants them."""
    return json.dumps([preparation.get(name) for name in _CUT])


def unknown_attributes(said: Mapping[str, int] | None) -> list[str]:
    """Names of attributes that no collection has a place for."""
    return sorted(set(said or ()) - set(ATTRIBUTES))


_PLAIN = ("image_id", "photo", "jpeg", "width", "height", "content_hash", "label", "split", "face", "prepared")
_PACKED = ("attributes", "box", "points", "quality")
COLUMNS = (*_PLAIN, *_PACKED)
"""Of the table of images, but `seq` and `added`."""


def values_of(image: NewImage) -> dict[str, Any]:
    """What goes into each of COLUMNS, and `vector`, the bytes of its embedding."""
    values = {name: getattr(image, name) for name in _PLAIN}
    values |= {name: _packed(getattr(image, name)) for name in _PACKED}
    return values | {"vector": blob_of(image.vector)}


def blob_of(vector: np.ndarray) -> bytes:
    """(D,) of any float type -> little-endian float32, as embeddings are stored."""
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def row_of(row: Sequence[Any]) -> LiveRow:
    """A row of `schema.CHANGED_ROWS`."""
    image_id, seq, added, label, split, attributes, content_hash, photo, face, box, points, quality, *rest = row
    width, height, prepared, vector, original = rest
    entry = Entry(
        image_id=image_id,
        label=label,
        split=split,
        person=None,
        attributes=_unpacked(attributes),
        added=datetime.fromtimestamp(added / 1e6, UTC),
        where="live",
        photo=photo,
        face=face,
        width=width,
        height=height,
        content_hash=content_hash,
        original=bool(original),
        seq=seq,
    )
    told = None if vector is None else np.frombuffer(vector, dtype="<f4").astype(np.float32)
    return LiveRow(entry, told, _unpacked(box), _unpacked(points), _unpacked(quality), prepared)


def _packed(value: Any) -> str | None:
    if value is None:
        return None
    return json.dumps(dict(value) if isinstance(value, Mapping) else [float(one) for one in value])


def _unpacked(text: str | None) -> Any:
    return None if text is None else json.loads(text)
