"""Settings of the index and of query expansion. No heavy library is imported."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
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
    recall: float | None = None
    """A promise: the share of the 10 nearest that is found, 0 to 1, measured on your own vectors. With one of these
    three and no factory, kind and settings are chosen by measuring. An index that breaks its promise is not sealed."""
    memory: str | None = None
    """A promise: what the index takes of memory, for example 8GB; vectors that only refine codes are on disk."""
    latency: str | None = None
    """A promise: how long a query takes, one core, 95 of 100 of them, for example 20ms."""
    seed: int = 0
    """Draws the training sample and the starting centroids."""

    def __post_init__(self) -> None:
        for name in ("nprobe", "ef_search", "train_sample", "leaf_size", "max_visits", "num_shards"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name} is {value}, expected 1 or more.")
        if not self.refine_factor >= 1:
            raise ValueError(f"refine_factor is {self.refine_factor}, expected 1 or more.")
        if self.recall is not None and not 0 < self.recall <= 1:
            raise ValueError(f"recall is {self.recall:g}, expected above 0 and at most 1, for example 0.95.")
        _ = self.max_bytes, self.max_seconds

    @property
    def promises(self) -> bool:
        """Whether anything is promised of it, and so measured."""
        return self.recall is not None or self.memory is not None or self.latency is not None

    @property
    def is_chosen(self) -> bool:
        """Whether its kind is chosen by what it promises."""
        return self.promises and self.factory == "Flat"

    @property
    def max_bytes(self) -> float | None:
        """What it may take of memory. Raises: ValueError for no such amount."""
        return None if self.memory is None else _amount("memory", self.memory, _BYTES, "8GB")

    @property
    def max_seconds(self) -> float | None:
        """How long a query may take. Raises: ValueError for no such time."""
        return None if self.latency is None else _amount("latency", self.latency, _SECONDS, "20ms")


_BYTES = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def _amount(name: str, text: str, units: Mapping[str, float], example: str) -> float:
    """What a number with a unit stands for."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", text)
    value = float(found[1]) * units.get(found[2], 0) if found else 0.0
    if not value:
        raise ValueError(
            f"{name} is '{text}', expected a number and a unit ({', '.join(units)}), for example {example}."
        )
    return value
