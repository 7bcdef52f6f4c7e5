"""A step's folder, begun and sealed with settings of which a test changes those it is about."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.artifacts import manifest
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class StepConfig:
    """size decides what is made, num_workers only how fast."""

    size: int = 218
    num_workers: int = 2


def seal(folder: Folder, **changes: object) -> Manifest:
    """`manifest.seal` of embeddings. changes: of its arguments."""
    arguments = {"kind": "embeddings", "config": StepConfig(), "inputs": {"model": "m1"}, "counts": {"num": 1}}
    return manifest.seal(folder, **{**arguments, **changes})  # type: ignore[arg-type]


def begin(folder: Folder, **changes: object) -> Manifest | None:
    """`manifest.begin` of embeddings. changes: of its arguments."""
    arguments = {"kind": "embeddings", "config": StepConfig(), "inputs": {"model": "m1"}}
    return manifest.begin(folder, **{**arguments, **changes})  # type: ignore[arg-type]
