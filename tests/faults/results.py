"""What jobs leave: to be compared, however they were disturbed."""

from __future__ import annotations

from typing import Any

import pyarrow.fs as pafs

from retrieval.artifacts import published
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.artifacts.manifest import MANIFEST, STARTED, read_manifest


def left(out: Folder) -> dict[str, Any]:
    """What a job made: of each sealed folder the fingerprint, hashes and books; the content of what is not sealed.

    Raises: AssertionError if anything is left of its being made.
    """
    names = sorted(_all_files(out))
    found = sealed(out)
    within = tuple(f"{place}/" if place else "" for place in found)
    loose = [name for name in names if not (within and name.startswith(within)) and "live/" not in name]
    for name in loose:
        content: Any = out.read_bytes(name)
        if name.endswith(published.CURRENT):
            content = [one.fingerprints for one in published.history(out)[1]]
        found[name] = str(content)
    return found


def sealed(out: Folder) -> dict[str, Any]:
    """Of each sealed folder below `out` the fingerprint, hashes and books, by its place.

    Raises: AssertionError if anything is left of its being made.
    """
    names = sorted(_all_files(out))
    odd = [name for name in names if any(mark in f"/{name}" for mark in (".tmp-", "/.done/", "/.owner"))]
    assert not odd and not [name for name in names if name.endswith(STARTED)], f"left over: {odd or names}"
    found: dict[str, Any] = {}
    for place in (name.removesuffix(MANIFEST).rstrip("/") for name in names if name.endswith(MANIFEST)):
        manifest = read_manifest(out / place if place else out)
        found[place] = plain({"f": manifest.fingerprint, "files": manifest.files, "books": manifest.books})
        found[place]["aside"] = sorted(manifest.aside)
    return found


def _all_files(out: Folder) -> list[str]:
    infos = out.fs.get_file_info(pafs.FileSelector(out.path, recursive=True, allow_not_found=True))
    return [info.path[len(out.path) :].lstrip("/") for info in infos if info.type == pafs.FileType.File]
