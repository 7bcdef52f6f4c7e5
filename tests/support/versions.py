"""Several published versions of one small workspace, what each of them must answer, and ways to spoil one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.artifacts import published
from retrieval.artifacts.collection import keep_detector
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.models.bundle import save_bundle, start
from retrieval.search.settings import IndexConfig
from tests.support.workspace import SHALLOW, Workspace, embed, make_index, make_workspace


def publish_another(made: Workspace, number: int, factory: str = "Flat", shards: int = 2) -> str:
    """Another model of the same photos, with an index of its own. Returns the version's name."""
    root, collection = made.folder, made.folder / "collection/test"
    bundle, embeddings, index = (root / f"{kind}/{number}" for kind in ("model", "embeddings", "index"))
    prepare = read_manifest(collection).config["prepare"]
    keep_detector(collection, bundle)
    save_bundle(start(SHALLOW, preparation=prepare, seed=number), bundle)
    embed(embeddings, collection, bundle)
    make_index(index, embeddings, IndexConfig(factory=factory, num_shards=shards), collection)
    return published.publish(root, collection=collection, model=bundle, index=index)


def make_versions(root: Path, num: int = 2, **how: Any) -> tuple[Workspace, list[str]]:
    """A workspace that published `num` versions, the last of which is current, and their names in order."""
    made = make_workspace(root, **how)
    first = published.history(made.folder)[0].version
    return made, [first, *(publish_another(made, number) for number in range(1, num))]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a version answers to one photo."""

    model: str
    index: str
    image_ids: tuple[str, ...]
    scores: tuple[float, ...]

    def differs(self, answer: Mapping[str, Any]) -> str:
        """What is not this version's in a body of POST /v1/search; empty if all is."""
        if (answer["model"], answer["index"]) != (self.model, self.index):
            return "fingerprints"
        results = answer["results"]
        if tuple(one["image_id"] for one in results) != self.image_ids:
            return "images"
        far = [abs(one["score"] - score) > 2e-4 for one, score in zip(results, self.scores, strict=True)]
        return "scores" if any(far) else ""


def expected_of(answer: Mapping[str, Any]) -> Expected:
    """Taken from an answer that was given while nothing changed."""
    results = answer["results"]
    return Expected(
        answer["model"],
        answer["index"],
        tuple(one["image_id"] for one in results),
        tuple(one["score"] for one in results),
    )


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def flip(folder: Folder, name: str) -> None:
    """Another byte in the middle of a file."""
    data = bytearray(folder.read_bytes(name))
    data[len(data) // 2] ^= 0xFF
    folder.write_bytes(name, bytes(data))
