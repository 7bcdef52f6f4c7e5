"""Vectors like embeddings of people, and an index of them, sealed as the job seals it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import IDS, KIND, settings_of
from retrieval.artifacts.manifest import begin, seal
from retrieval.search.engines.engine import kind_of
from retrieval.search.index import build_shard, train_index
from retrieval.search.settings import IndexConfig

DIM = 32


def clustered(num: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """(num, dim) float32, L2-normalised, ten to a cluster, like embeddings of people."""
    rng = np.random.default_rng(seed)
    vectors = np.repeat(rng.normal(size=(-(-num // 10), dim)), 10, axis=0)[:num] + 0.4 * rng.normal(size=(num, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def brute_force(queries: np.ndarray, vectors: np.ndarray, k: int) -> list[list[int]]:
    """Sort every pair by (score, row) in Python, each score summed alone."""
    out = []
    for query in queries.astype(np.float64):
        scores = [np.float32((query * vector).sum()) for vector in vectors.astype(np.float64)]
        out.append(sorted(range(len(vectors)), key=lambda row: (-scores[row], row))[:k])
    return out


def index_of(
    folder: Path, vectors: np.ndarray, shards: int, sample: np.ndarray | None = None, **settings: object
) -> Folder:
    """A sealed index folder whose rows are dealt to shards at random."""
    config, out = IndexConfig(**settings), Folder.of(folder)  # type: ignore[arg-type]
    sealed = settings_of(["gallery"], dataclasses.asdict(config))
    begin(out, kind=KIND, config=sealed, inputs={})
    trained = train_index(config, vectors if sample is None else sample)
    dealt = np.random.default_rng(1).permutation(len(vectors))
    for shard, rows in enumerate(np.array_split(dealt, shards)):
        suffix = kind_of(config.factory).suffix
        out.write_bytes(f"shard-{shard:05d}{suffix}", build_shard(config, trained, vectors[rows], rows))
    num = len(vectors)
    table = {"image_id": [f"{i:06d}.jpg" for i in range(num)], "label": [str(i // 10) for i in range(num)]}
    table |= {"part": np.zeros(num, np.int32), "row_in_part": np.arange(num, dtype=np.int32)}
    out.write_table(IDS, pa.table(table))
    seal(out, kind=KIND, config=sealed, inputs={}, counts={})
    return out
