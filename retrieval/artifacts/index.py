"""An index on storage: its file names, and what its seal says of how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrieval.artifacts.manifest import Manifest

KIND = "index"

IDS = "ids.parquet"
"""image_id, label, part and row_in_part of each row, sorted by image_id."""

TRAINED = "trained.faiss"
"""The empty, trained index that shards start from, for kinds that start from something."""


def settings_of(splits: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest of an index records. Args: config: the fields of its IndexConfig."""
    return {"splits": list(splits), "index": dict(config)}


def factory_of(manifest: Manifest) -> str:
    """The factory string of a sealed index."""
    return manifest.config["index"]["factory"]
