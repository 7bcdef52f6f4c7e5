"""A source that is a tree of folders: labels by folder, or none.

Folders are labels where somebody says so, or where the names themselves do, as in LFW: Ann_Lee/Ann_Lee_0001.jpg. The
folders of a camera or of a family, 2019/, DCIM/, Rome/, are no persons.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping

from retrieval.artifacts.folder import Folder
from retrieval.data.source import Listing, Photo, photo_files

_NAMED = 0.9  # part of the photos that must be named after their folder
_TWO_WORDS = 0.5  # part of the folders that must have a first and a last name


def fits_labels(files: Mapping[str, int]) -> bool:
    """Whether the names say that folders are people, as LFW's do: at least two folders, one level deep, named in
    letters, most of them in two words, whose photos bear the folder's own name and a number of four digits.

    So 2019/2019_0001.jpg, IMG/IMG_0001.jpg and Summer Trip/Summer Trip 2.jpg are no people. New_York/New_York_0001.jpg
    would be.
    """
    num = named = two = people = 0
    before = None
    for path, _ in photo_files(files.items(), Listing()):
        folder, _, name = path.rpartition("/")
        if not folder or "/" in folder:
            return False
        if folder != before:  # in order of their names the photos of a folder come one after another
            before = folder
            if re.search(r"\d", folder):
                return False
            people += 1
            two += re.search(r"[^\W_][_ -][^\W_]", folder) is not None
        num += 1
        stem = posixpath.splitext(name)[0]
        named += re.fullmatch(r"_\d{4}", stem[len(folder) :]) is not None and stem.startswith(folder)
    return people >= 2 and named >= _NAMED * num and two >= _TWO_WORDS * people


def read(root: Folder, files: Mapping[str, int], found: Listing) -> Iterator[Photo]:
    """All photos, without labels."""
    for path, size in photo_files(files.items(), found):
        yield Photo(image_id=path, uri=path, size=size)


def read_labelled(root: Folder, files: Mapping[str, int], found: Listing) -> Iterator[Photo]:
    """All photos, each labelled by the folder it lies in; a photo in no folder has no label."""
    for path, size in photo_files(files.items(), found):
        label = posixpath.basename(posixpath.dirname(path)) or None
        yield Photo(image_id=path, uri=path, size=size, label=label)
