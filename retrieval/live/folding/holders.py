"""Which sealed folders of a workspace hold an image: its crop in a collection, its embedding in what was made of it."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from retrieval.artifacts.collection import read_catalog
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import MANIFEST, Manifest, read_manifest

MADE_OF_IT = ("embeddings", "index", "people", "features")
"""Kinds that hold something of each photo of a collection, and are made again from it."""


def sealed_folders(workspace: Folder, kind: str) -> dict[Folder, Manifest]:
    """The sealed folders of a kind in the workspace's own place for them."""
    selector = pafs.FileSelector((workspace / kind).path, allow_not_found=True)
    folders = [workspace / kind / info.base_name for info in workspace.fs.get_file_info(selector)]
    return {folder: read_manifest(folder) for folder in sorted(folders, key=str) if folder.exists(MANIFEST)}


def copies_of(collection: Folder, image_ids: Collection[str]) -> list[str]:
    """Photos that are in a collection byte for byte like one of these, and were left out of the index for it."""
    catalog = read_catalog(collection, columns=("image_id", "duplicate_of"))
    same = pc.is_in(catalog["duplicate_of"], value_set=pa.array(list(image_ids), pa.string()))
    return catalog["image_id"].filter(same).to_pylist()


def collections_with(workspace: Folder, image_ids: Collection[str]) -> dict[Folder, str]:
    """The collections that hold any of these, each with its fingerprint."""
    wanted = pa.array(list(image_ids), pa.string())
    found = {}
    for folder, manifest in sealed_folders(workspace, "collection").items():
        ids = folder.read_table("catalog.parquet", columns=["image_id"])["image_id"]
        if pc.any(pc.is_in(ids, value_set=wanted)).as_py():
            found[folder] = manifest.fingerprint
    return found


def holders(workspace: Folder, image_ids: Collection[str]) -> list[Folder]:
    """Every folder that holds a crop or an embedding of any of these: collections, and what was made of them."""
    collections = collections_with(workspace, image_ids)
    return [*collections, *made_of(workspace, collections.values())]


def made_of(workspace: Folder, collections: Collection[str]) -> list[Folder]:
    """What was made of these collections. Args: collections: their fingerprints."""
    return [
        folder
        for kind in MADE_OF_IT
        for folder, manifest in sealed_folders(workspace, kind).items()
        if manifest.inputs.get("collection") in collections
    ]
