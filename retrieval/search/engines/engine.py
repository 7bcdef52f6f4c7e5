"""What every file of this folder keeps to: how a kind of index is made, opened, and searched by local position.

A kind of index is one module here that ends in `KIND = Kind(...)`. It says which factory strings are its own and how
its files end, and is found by looking through the folder: nothing else names it. What it can be told stands in the
factory string (`factory` may be any pattern), or in `IndexConfig`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from retrieval.artifacts.folder import Folder
from retrieval.search.blocks import Blocks
from retrieval.search.ranking import Neighbours
from retrieval.search.settings import IndexConfig


class Engine(Protocol):
    """What searches one shard, by local position; `dim` is the embeddings' dimension."""

    @property
    def dim(self) -> int: ...

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Neighbours:
        """The k best of each query, equal scores by position; (Q, D) float32, k no more than there are vectors.

        Args: allowed: (n,) bool by position, which vectors may be found; None: all. Then lists are k long, or hold
            all that are allowed, whatever the kind of index would have come by on its way.
        """
        ...

    def configure(self, config: IndexConfig) -> None:
        """Look as hard as these settings say from now on (nprobe, ef_search, refine_factor, max_visits)."""
        ...

    def vectors_of(self, local: np.ndarray) -> np.ndarray | None:
        """(n, D) float32 at the positions (n,), exactly as they were added; None where only codes are kept."""
        ...


SCAN_AT_MOST = 100_000
"""As many allowed vectors are looked at one by one, whatever the index: no filter costs neighbours there."""
SCAN_SHARE = 0.1
"""Below this share of allowed vectors they are looked at one by one, however many they are."""
NEARLY_ALL = 0.75
"""Above this share a filter hardly matters, and the index searches as it does without one.

All three are argued by what benchmarks/bench_filter.py measures: docs/decisions/filters-inside-the-index.md."""


def is_scanned(num_allowed: int, num: int) -> bool:
    """Whether a filter leaves so few vectors that each of them is looked at."""
    return num_allowed <= min(max(SCAN_AT_MOST, SCAN_SHARE * num), NEARLY_ALL * num)


def _no_sample(_config: IndexConfig, _dim: int) -> int:
    return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """How shards of one kind of index are made and opened. All settings are those of the whole index."""

    factory: str | None
    """Regular expression of the factory strings that are its own, matched whole; None: those that are no other's."""
    suffix: str
    """How its files end, and no other kind's do."""
    build: Callable[[IndexConfig, bytes, Blocks], Callable[[Any], None]]
    """(config, what `train` made, the vectors) -> what writes the file, piece by piece, to a binary file it is given;
    local order is that of rows. Memory: the finished file's and a little, so nothing is held twice."""
    load: Callable[[Folder, str, int, bool], tuple[Engine, np.ndarray]]
    """(folder, file, threads, whether to map it) -> what searches it, and its rows. Raises on broken files."""
    train: Callable[[IndexConfig, np.ndarray, int], bytes] | None = None
    """(config, (n, D) float32 sample, threads) -> what every shard starts from; None: from nothing."""
    sample_size: Callable[[IndexConfig, int], int] = _no_sample
    """(config, D) -> of how many vectors `train` would have a sample; 0: it looks at none. Raises: ValueError for
    settings that cannot be."""


@functools.cache
def kinds() -> tuple[Kind, ...]:
    """Every kind of index in this folder; the one that takes what is left over comes last."""
    package = importlib.import_module(__package__ or "")
    names = sorted(found.name for found in pkgutil.iter_modules(package.__path__))
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    found = [kind for module in modules if isinstance(kind := getattr(module, "KIND", None), Kind)]
    return tuple(sorted(found, key=lambda kind: kind.factory is None))


def kind_of(factory: str) -> Kind:
    """The kind that a factory string asks for."""
    return next(kind for kind in kinds() if kind.factory is None or re.fullmatch(kind.factory, factory))


def kind_of_file(name: str) -> Kind:
    """The kind that a shard's file is of.

    Raises: ValueError if none here writes such files.
    """
    for kind in kinds():
        if name.endswith(kind.suffix):
            return kind
    known = ", ".join(kind.suffix for kind in kinds())
    raise ValueError(f"no kind of index writes '{name}': they end in {known}")
