"""What a command is given is looked at first, before anything heavy is loaded and a cluster is started.

A library's function that is given a place looks again, and closer, but only once it and all it needs are loaded.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from ray_jobs.runtime.places import must_answer
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.artifacts.storage.patience import current

_NO_FILES = ("none", "imagenet")


def must_be_at_least(least: int, settings: Any, *names: str) -> None:
    """Raises: ValueError for the first of these fields of a config that is below `least`."""
    for name in names:
        if getattr(settings, name) < least:
            raise ValueError(f"{name} is {getattr(settings, name)}, expected {least} or more.")


def must_be_sealed(**places: str) -> None:
    """Folders of earlier steps, by their kind.

    Raises: ValueError for one that is not sealed, or of another kind; Outage if a store does not answer, at once unless
        a job waits for it already.
    """
    if not current():
        must_answer(*places.values())
    for kind, place in places.items():
        read_manifest(Folder.of(place), kind)


def must_be_there(place: str, hint: str) -> None:
    """Raises: ValueError if there is neither a file nor a folder at `place`, or it cannot be asked; `hint` ends it."""
    where = Folder.of(place)
    try:
        kind = where.fs.get_file_info(where.path).type
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"Cannot look at {where}: {error}. {hint}") from error
    if kind == pafs.FileType.NotFound:
        raise ValueError(f"There is nothing at {where}. {hint}")


def source_must_be_there(source: str) -> None:
    """Photos that are to be ingested."""
    must_be_there(source, "Name a folder of photos, or a CSV or Parquet manifest.")


def weights_must_be_there(weights: str) -> None:
    """A starting point that is a file or a bundle's folder; one in MLflow or on the web is asked for later."""
    if weights not in _NO_FILES and not weights.startswith("models:/"):
        must_be_there(weights, "Give weights: a .pth or .safetensors file, a bundle's folder, imagenet or none.")
