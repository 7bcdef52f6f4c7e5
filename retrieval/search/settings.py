"""Settings of the index and of query expansion. No heavy library is imported."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpansionConfig:
    """How queries are expanded."""

    num: int = 0
    """Neighbours added to a query; 0: no expansion. 10 is common, 50 published for large galleries."""
    alpha: float = 3.0
    """Weight of a neighbour is its score to this power: 0 counts all alike, more trusts the nearest."""

    def __post_init__(self) -> None:
        if self.num < 0 or not 0 <= self.alpha < math.inf:
            raise ValueError(f"expansion num is {self.num} and alpha {self.alpha}, expected 0 or more of both.")


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig:
    """What kind of index, and how hard it looks."""

    factory: str = "Flat"
    """Flat (exact), KDTree (exact tree), or any FAISS factory string: IVF256,Flat HNSW32 IVF256,PQ16x4fs,RFlat ..."""
    num_shards: int | Literal["auto"] = "auto"
    """How many files the index is cut into, built and searched in parallel; auto is one per 500,000
    images, or per GiB of their embeddings if that is fewer."""
    nprobe: int = 16
    """IVF: inverted lists visited per query. More is slower and finds more."""
    ef_search: int = 64
    """HNSW: candidates kept while walking the graph. More is slower and finds more."""
    refine_factor: float = 4.0
    """Refined indexes (...,RFlat): how many times k coarse candidates are scored again exactly."""
    train_sample: int | Literal["auto"] = "auto"
    """IVF, PQ: how many embeddings, drawn at random, the quantisers are trained on; auto grows with the lists."""
    leaf_size: int = 64
    """KDTree: embeddings in a leaf, at most (more only where they are all equal)."""
    max_visits: int | None = None
    """KDTree: leaves visited per query, at most; none means until the result is exact."""
    seed: int = 0
    """Draws the training sample and the starting centroids."""

    def __post_init__(self) -> None:
        for name in ("nprobe", "ef_search", "train_sample", "leaf_size", "max_visits", "num_shards"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name} is {value}, expected 1 or more.")
        if not self.refine_factor >= 1:
            raise ValueError(f"refine_factor is {self.refine_factor}, expected 1 or more.")
