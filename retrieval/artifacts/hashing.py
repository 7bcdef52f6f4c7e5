"""Names made of content: settings as plain values, digests of values and files, draws that depend on names alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.storage.patience import patiently


def plain(config: Any) -> dict[str, Any]:
    """A config dataclass (or dict) as plain JSON values, the form stored in manifests and compared by `begin`."""
    value = dataclasses.asdict(config) if dataclasses.is_dataclass(config) and not isinstance(config, type) else config
    return json.loads(json.dumps(value, default=str, sort_keys=True))


def digest(value: Any) -> str:
    """sha256 hex of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def hash_file(folder: Folder, name: str) -> str:
    """sha256 hex of one file, read in 1 MiB pieces."""
    return patiently(lambda: _hash_file(folder, name), f"reading {folder / name}")


def _hash_file(folder: Folder, name: str) -> str:
    total = hashlib.sha256()
    with folder.fs.open_input_stream(folder.file(name)) as stream:
        while piece := stream.read(1 << 20):
            total.update(piece)
    return total.hexdigest()


def draw_key(*parts: object) -> bytes:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
