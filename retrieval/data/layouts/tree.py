"""A source that is a tree of folders: labels by folder, or none."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from retrieval.artifacts.folder import Folder
from retrieval.data.source import Listing, Photo, photo_files


def fits_labels(files: Mapping[str, int]) -> bool:
    """Whether folders look like labels: at least two hold photos, and all photos lie one level deep."""
    folders = {posixpath.dirname(path) for path in photo_files(files, Listing())}
    return len(folders) >= 2 and all(folder and "/" not in folder for folder in folders)


def read(root: Folder, files: Mapping[str, int], found: Listing) -> None:
    """Fill `found` with all photos, without labels."""
    for path, size in photo_files(files, found).items():
        found.add(Photo(image_id=path, uri=path, size=size))


def read_labelled(root: Folder, files: Mapping[str, int], found: Listing) -> None:
    """Fill `found` with all photos, each labelled by the folder it lies in; a photo in no folder has no label."""
    for path, size in photo_files(files, found).items():
        label = posixpath.basename(posixpath.dirname(path)) or None
        found.add(Photo(image_id=path, uri=path, size=size, label=label))
