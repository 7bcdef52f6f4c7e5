"""A source that is a tree of folders: labels by folder, or none."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from retrieval.data.source import Listing, Photo


def read_tree(photos: Mapping[str, int], found: Listing, *, labelled: bool) -> None:
    for path, size in photos.items():
        folder = posixpath.basename(posixpath.dirname(path))
        found.add(Photo(image_id=path, uri=path, size=size, label=(folder or None) if labelled else None))
