"""A filter as it is asked for and as the gallery takes it; what is known of an image, in the words of the API."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping

from retrieval.live.entries import Entry
from retrieval.live.filters import Filter
from serve import schemas
from serve.schemas import ImageInfo


def filter_of(asked: schemas.Filter | None) -> Filter | None:
    """None for no filter, and for one that asks nothing."""
    if asked is None:
        return None
    listed = {name: getattr(asked, name) for name in ("label", "split", "person", "folder", "image_id")}
    made = Filter(
        attributes=None if asked.attributes is None else tuple(sorted(asked.attributes.items())),
        added_after=asked.added_after,
        added_before=asked.added_before,
        **{name: None if value is None else tuple(value) for name, value in listed.items()},
    )
    return None if made.is_empty else made


def thumbnail_of(image_id: str, prefix: str) -> str:
    """The address of a stored crop. prefix: what all addresses of the service begin with."""
    return f"{prefix}/v1/images/{urllib.parse.quote(image_id, safe='')}/thumbnail"


def info_of(entry: Entry, names: Mapping[int, str], prefix: str) -> ImageInfo:
    """Args: names: of people, by number."""
    return ImageInfo(
        image_id=entry.image_id,
        label=entry.label,
        split=entry.split,
        person=entry.person,
        person_name=None if entry.person is None else names.get(entry.person),
        attributes=None if entry.attributes is None else dict(entry.attributes),
        added=entry.added,
        where=entry.where,
        photo=entry.photo,
        face=entry.face,
        width=entry.width,
        height=entry.height,
        thumbnail=thumbnail_of(entry.image_id, prefix),
        original=entry.original,
    )
