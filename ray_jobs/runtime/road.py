"""The road of a pipeline: where each step lies, which one is begun."""

from __future__ import annotations

import logging
from typing import Any

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import digest, plain
from retrieval.artifacts.manifest import read_manifest

logger = logging.getLogger(__name__)

_NOT_IN_KEY = ("workspace", "num_workers", "device", "tracking_uri")


def folder_of(workspace: Folder, step: str, made_of: dict[str, Any]) -> Folder:
    """<workspace>/<step>/<key>: other settings or inputs, another folder."""
    return workspace / step / digest({name: plain({"": value})[""] for name, value in made_of.items()})[:10]


def fingerprints(*folders: Folder) -> list[str]:
    return [read_manifest(folder).fingerprint for folder in folders]


def without(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in _NOT_IN_KEY}


class Steps:
    """Says which step is begun, of how many."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0

    def next(self, what: str) -> None:
        self._done += 1
        logger.info("[%d/%d] %s", self._done, self._total, what)
