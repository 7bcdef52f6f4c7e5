"""A small benchmark of random lists and embeddings, in memory and on storage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from retrieval.artifacts.embeddings import EMBEDDING_SCHEMA
from retrieval.artifacts.folder import Folder, part_name
from retrieval.artifacts.manifest import seal
from retrieval.evaluation.ground_truth import GroundTruth

NUM, QUERIES, DIM = 23, 4, 6


def truth(name: str = "made-up") -> GroundTruth:
    rng = np.random.default_rng(0)
    drawn = [np.split(rng.permutation(NUM)[:9], [3, 6]) for _ in range(QUERIES)]
    easy, hard, junk = (tuple(np.sort(lists[kind]) for lists in drawn) for kind in range(3))
    images = tuple(f"g{row:02d}" for row in rng.permutation(NUM))
    boxes = np.tile([0.0, 0, 9, 9], (QUERIES, 1))
    return GroundTruth(
        name=name, gallery=images, queries=("a", "b", "a", "c"), boxes=boxes, easy=easy, hard=hard, junk=junk
    )


def unit(num: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(num, DIM)) + 0.3
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def write(where: Path, named: dict[str, np.ndarray], part: int = 5) -> Folder:
    """Sealed embeddings in parts, in order of name, and an empty part."""
    folder, ids = Folder.of(where), sorted(named)
    for number, start in enumerate([*range(0, len(ids), part), len(ids)]):
        some = ids[start : start + part]
        table = {"image_id": some, "embedding": [named[image_id].tolist() for image_id in some]}
        folder.write_table(part_name(number), pa.table(table, schema=EMBEDDING_SCHEMA))
    seal(folder, kind="embeddings", config={}, inputs={}, counts={"dim": DIM})
    return folder


def stored(read: GroundTruth, where: Path, without: tuple[str, ...] = ()) -> Folder:
    named = dict(zip(read.gallery, unit(NUM, 1), strict=True)) | dict(zip(read.query_ids(), unit(QUERIES, 2)))
    return write(where, {name: vector for name, vector in named.items() if name not in without})
