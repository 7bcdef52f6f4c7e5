"""An index on storage: its file names, and what its seal says of how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Manifest

KIND = "index"

IDS = "ids.parquet"
"""image_id, label, part and row_in_part of each row, sorted by image_id."""

TRAINED = "trained.faiss"
"""The empty, trained index that shards start from, for kinds that start from something."""

CHOSEN = "chosen.json"
"""How an index that promises something is searched, and all that was measured to choose it."""

CHOICE = "choice.png"
"""The same as a figure."""

SHARD = "shard-"
"""How the files that are searched begin; the rest of an index is small."""


def shards_of(manifest: Manifest, part: int = 0, parts: int = 1) -> list[str]:
    """Names of an index's shard files: all, or those that are part `part` (from 0) of `parts`.

    Raises: ValueError if there are fewer shards than parts.
    """
    names = sorted(name for name in manifest.files if name.startswith(SHARD))
    if len(names) < parts and parts > 1:
        raise ValueError(
            f"An index of {len(names)} shards cannot be spread over {parts} parts. Build it with more "
            f"(--index.num-shards {parts}), or ask for fewer parts (index_parts)."
        )
    return names[part::parts]


def small_files(manifest: Manifest) -> list[str]:
    """Names of all files of an index but its shards."""
    return [name for name in manifest.all_files if not name.startswith(SHARD)]


def settings_of(splits: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest of an index records. Args: config: the fields of its IndexConfig."""
    return {"splits": list(splits), "index": dict(config)}


def factory_of(manifest: Manifest) -> str:
    """The factory string of a sealed index: the one that was asked for, or chosen."""
    return manifest.counts.get("promise", manifest.config["index"])["factory"]


def chosen_settings(folder: Folder) -> dict[str, Any]:
    """Of an index that promises something: fields of its IndexConfig."""
    return dict(folder.read_json(CHOSEN)["settings"])
