"""What a bundle tells of its training: the figures of each epoch, which are content, and its seconds, which are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest

HISTORY = "history.json"

CURVES, TUPLES_SHEET = "curves.png", "tuples.jpg"
"""Pictures of it, beside the seal: by epoch, and the tuples of the last."""

_SECONDS = "seconds/"


def write_history(folder: Folder, history: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Write history.json, a row an epoch, without the keys seconds/...

    Returns: those seconds, a row an epoch too, for the manifest's `run`.
    """
    rows = [dict(row) for row in history]
    folder.write_json(
        HISTORY, [{key: row[key] for key in row if not key.startswith(_SECONDS)} for row in rows], about={}
    )
    return {"epochs": [{key: row[key] for key in row if key.startswith(_SECONDS)} for row in rows]}


def read_history(bundle: Folder) -> list[dict[str, Any]]:
    """The rows that were written, their seconds put back; none if the bundle was not trained.

    Raises: ValueError if the bundle is not sealed.
    """
    seconds = read_manifest(bundle, "model").run.get("epochs")
    rows = bundle.read_json(HISTORY) if bundle.exists(HISTORY) else []
    return rows if seconds is None else [row | spent for row, spent in zip(rows, seconds, strict=True)]
