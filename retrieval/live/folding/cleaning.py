"""Folders that hold what was erased, removed once nothing that is served needs them."""

from __future__ import annotations

import logging
from collections.abc import Collection

import pyarrow.fs as pafs

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import MANIFEST, read_manifest
from retrieval.live.folding.holders import MADE_OF_IT, collections_with, made_of
from retrieval.live.folding.plan import PREFIX

logger = logging.getLogger(__name__)

_KINDS = ("collection", *MADE_OF_IT)


def to_remove(
    workspace: Folder, erased: Collection[str], served: Collection[Folder], old: Collection[Folder] = ()
) -> list[Folder]:
    """What holds an erased image, and what an earlier folding left unfinished.

    Args: erased: image_ids. served: folders that stay whatever is in them. old: collections that
        hold another photo under a name that came again.

    Raises: ValueError if a served collection holds an erased image.
    """
    holding = collections_with(workspace, erased) | {folder: read_manifest(folder).fingerprint for folder in old}
    keep = {folder.uri for folder in served}
    if wrong := [folder for folder in holding if folder.uri in keep]:
        raise ValueError(f"{wrong[0]} is served and holds images that were erased. Fold again.")
    found = [*holding, *made_of(workspace, holding.values()), *_unfinished(workspace)]
    return [folder for folder in found if folder.uri not in keep]


def _unfinished(workspace: Folder) -> list[Folder]:
    found = []
    for kind in _KINDS:
        selector = pafs.FileSelector((workspace / kind).path, allow_not_found=True)
        names = [info.base_name for info in workspace.fs.get_file_info(selector)]
        folders = [workspace / kind / name for name in sorted(names) if name.startswith(PREFIX)]
        found += [folder for folder in folders if not folder.exists(MANIFEST)]
    return found


def remove(folders: Collection[Folder]) -> None:
    """The seal first: what is half removed is no artefact."""
    for folder in folders:
        what = read_manifest(folder).kind if folder.exists(MANIFEST) else "an unfinished folder"
        folder.remove(MANIFEST)
        folder.fs.delete_dir(folder.path)
        logger.info("removed %s (%s): it held images that were erased, or was never finished", folder, what)
