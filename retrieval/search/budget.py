"""Which kind of index keeps a promise: recall, memory and time of settings, measured on someone's own vectors.

    kinds = candidates(config, num, dim)                         # settings worth trying, kind by kind
    seen = measure(kinds[0], shard, queries, exact, beside=0)    # how each does
    best = choose([*seen, ...], config)                          # the one to take, or ValueError with the nearest

Recall is of the 10 nearest by exact search, the query itself left out. Time is of single queries on one thread, the
95th percentile. Memory is what every query may look at: codes, lists, links, names. The vectors by which codes are
refined (`RFlat`) are not counted: they lie in the mapped file, and a query reads some forty of them.
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.search.index import Shard
from retrieval.search.settings import IndexConfig

K = 10
"""How many of the nearest are asked for."""

NAMES = 24  # bytes a row in memory beside the index: where each image lies
_PROBES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_EFS = (16, 32, 64, 128, 256, 512)
_REFINES = (2.0, 4.0, 10.0, 25.0)
_PER_LIST = 39  # vectors below which FAISS warns that k-means has too few

AS_GOOD = 0.999
"""A recall beyond which looking harder need not be tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One setting, and how it did. recall: 0 to 1. seconds: of a query. bytes_each: of memory, a vector."""

    config: IndexConfig
    recall: float
    seconds: float
    bytes_each: float

    def of_index(self, num: int, shard: int, measured: int) -> Measured:
        """What is to be expected of `num` vectors in shards of `shard`, from what a sample of `measured` showed.

        A scan grows with the vectors, a graph with their logarithm, lists (as many as the root of the vectors, so that
        each is as long as that) with their root; shards are searched one after another.
        """
        ratio = max(1.0, shard / measured)
        if self.config.factory == "Flat":
            grown = ratio
        elif "HNSW" in self.config.factory:
            grown = math.log(max(shard, 3)) / math.log(max(min(measured, shard), 3))
        else:
            grown = math.sqrt(ratio)
        return dataclasses.replace(self, seconds=self.seconds * grown * num / shard)


def candidates(config: IndexConfig, num: int, dim: int) -> list[list[IndexConfig]]:
    """Kinds for shards of `num` vectors of `dim` numbers, each with the settings of search worth trying."""
    lists = _num_lists(num)
    factories = ["Flat", "HNSW32"]
    if lists >= 4:
        factories += [f"IVF{lists},{codes}" for codes in _codes(dim)]
    return [settings(dataclasses.replace(config, factory=factory)) for factory in factories]


def _num_lists(num: int) -> int:
    """A power of two near 4 sqrt(n), each list with enough to be trained on."""
    return 1 << max(0, math.floor(math.log2(max(1.0, min(4 * math.sqrt(num), num / _PER_LIST)))))


def _codes(dim: int) -> list[str]:
    """What lists may hold: vectors; bytes; 4 bits for two numbers, or one a number, both refined by the vectors."""
    codes = ["Flat", "SQ8"]
    if dim % 2 == 0:
        codes.append(f"PQ{dim // 2}x4fs,RFlat")
    return [*codes, "RaBitQfs,RFlat"]


def settings(config: IndexConfig) -> list[IndexConfig]:
    """The settings of search worth trying of one kind, those that look least first."""
    found = [config]
    if lists := re.search(r"IVF(\d+)", config.factory):
        found = [
            dataclasses.replace(one, nprobe=n) for one in found for n in _PROBES if n <= max(1, int(lists[1]) // 2)
        ]
    if "HNSW" in config.factory and not lists:
        found = [dataclasses.replace(one, ef_search=ef) for one in found for ef in _EFS]
    if ",R" in config.factory:
        found = [dataclasses.replace(one, refine_factor=factor) for one in found for factor in _REFINES]
    return found


def measure(
    tried: Iterable[IndexConfig],
    shard: Shard,
    queries: np.ndarray,
    exact: np.ndarray,
    itself: np.ndarray,
    beside: int,
    enough: float = math.inf,
) -> list[Measured]:
    """How each setting does on an opened shard, until one finds enough.

    Args:
        tried: settings of one kind, the shard's. queries: (Q, D) float32.
        exact: (Q, K) int64, rows of the nearest, without the query's own. itself: (Q,) int64, that row, -1 for none.
        beside: bytes of the shard's file, or of its index, that are memory.
    """
    found: list[Measured] = []
    for config in tried:
        shard.engine.configure(config)
        rows, seconds = np.full((len(queries), K), -1, dtype=np.int64), np.empty(len(queries))
        for at in range(len(queries)):
            nearest, seconds[at] = _asked_twice(shard, queries[at : at + 1])
            others = nearest[nearest != itself[at]][:K]
            rows[at, : len(others)] = others
        recall = recall_of(rows, exact)
        each = beside / len(shard) + NAMES
        slow = float(np.quantile(seconds, 0.95))
        found.append(Measured(config=config, recall=recall, seconds=slow, bytes_each=each))
        if recall >= enough:
            break
    return found


def _asked_twice(shard: Shard, query: np.ndarray) -> tuple[np.ndarray, float]:
    """Its nearest, and the lesser time of two: the other may have been somebody else's."""
    started = time.perf_counter()
    found = shard.search(query, K + 1)
    middle = time.perf_counter()
    shard.search(query, K + 1)
    return found.rows[0], min(middle - started, time.perf_counter() - middle)


def memory_of(config: IndexConfig, num_bytes: int, num: int, dim: int) -> int:
    """Of a file of so many bytes, those that every query may look at."""
    return num_bytes - (4 * dim * num if config.factory.endswith(",RFlat") else 0)


def recall_of(rows: np.ndarray, exact: np.ndarray) -> float:
    """The share of the exact neighbours, -1 for none, that was found, both (Q, k) int64; 1 where there are none."""
    num = int((exact >= 0).sum())
    hits = sum(len(np.intersect1d(ours, theirs[theirs >= 0])) for ours, theirs in zip(rows, exact, strict=True))
    return hits / num if num else 1.0


def choose(measured: Sequence[Measured], config: IndexConfig, num: int) -> Measured:
    """The setting that keeps what is asked of an index of `num` vectors: `Flat`, where it is asked to be quick and is;
    else the quickest that finds enough; where no recall is asked for, the one that finds most.

    Raises: ValueError if none does, with those that come nearest.
    """
    fit = [one for one in measured if not broken(one, config, num)]
    if not fit:
        raise ValueError(
            f"No kind of index keeps {asked(config)} for {num:,} images here. {_nearest(measured, config, num)}"
        )
    flat = [one for one in fit if one.config.factory == "Flat"]
    if flat and (config.latency or not config.recall):
        return flat[0]
    if config.recall:
        return min(fit, key=lambda one: one.seconds)
    return max(fit, key=lambda one: (round(one.recall, 3), -one.seconds))


def broken(one: Measured, config: IndexConfig, num: int) -> list[str]:
    """What of the promise it does not keep: recall, memory, latency."""
    limits = {
        "recall": config.recall is not None and one.recall < config.recall,
        "memory": config.max_bytes is not None and one.bytes_each * num > config.max_bytes,
        "latency": config.max_seconds is not None and one.seconds > config.max_seconds,
    }
    return [name for name, is_broken in limits.items() if is_broken]


def asked(config: IndexConfig) -> str:
    """The promise in words."""
    parts = [f"recall {config.recall:g}"] if config.recall is not None else []
    parts += [f"{name} {value}" for name, value in (("memory", config.memory), ("latency", config.latency)) if value]
    return ", ".join(parts)


def told(one: Measured, num: int) -> str:
    """A setting and its figures in a line."""
    size = size_of(one.bytes_each * num)
    return f"{name_of(one.config)}: recall {one.recall:.3f}, {1e3 * one.seconds:.2f} ms a query, {size}"


def name_of(config: IndexConfig) -> str:
    """A kind and how hard it looks: IVF256,RaBitQfs,RFlat nprobe 16 refine 4."""
    parts = [config.factory]
    if "IVF" in config.factory:
        parts.append(f"nprobe {config.nprobe}")
    elif "HNSW" in config.factory:
        parts.append(f"ef {config.ef_search}")
    if ",R" in config.factory:
        parts.append(f"refine {config.refine_factor:g}")
    return " ".join(parts)


def size_of(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"


def _nearest(measured: Sequence[Measured], config: IndexConfig, num: int) -> str:
    """Those that break least, one of each kind, and what to change."""
    best: dict[str, Measured] = {}
    for one in sorted(measured, key=lambda one: _miss(one, config, num)):
        best.setdefault(one.config.factory, one)
    lines = [f"{told(one, num)} (breaks {', '.join(broken(one, config, num))})" for one in list(best.values())[:3]]
    return f"Nearest: {'; '.join(lines)}. Ask for less recall, or allow more memory or time."


def _miss(one: Measured, config: IndexConfig, num: int) -> float:
    """By how much it breaks the promise: factors, added as logarithms; of recall, of what is not found."""
    miss = 0.0
    if config.recall is not None and one.recall < config.recall:
        miss += math.log((1 - one.recall) / max(1 - config.recall, 1e-3))
    for value, most in ((one.bytes_each * num, config.max_bytes), (one.seconds, config.max_seconds)):
        miss += max(0.0, math.log(value / most)) if most else 0.0
    return miss
