"""What each kind of index finds for its time and memory, beside other libraries; and whether budgets are kept.

    python benchmarks/bench_budget.py --vectors sift.npz                   # base (N, D) and query (Q, D)
    python benchmarks/bench_budget.py --embeddings workspace/embeddings/...

One process, one thread, single queries, the 95th percentile of their times, the same vectors for all. hnswlib, usearch
and lancedb are measured where they are installed (pip install hnswlib usearch lancedb). Then an index is built by each
budget as the job builds it, and asked by queries that it was not chosen by.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before numpy reads them

import dataclasses
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bench_search import Config as SearchConfig
from benchmarks.bench_search import load
from retrieval.artifacts.embeddings import write_part
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import IDS, chosen_settings
from retrieval.search.budget import K, asked, candidates, measure, memory_of, name_of, recall_of, settings
from retrieval.search.engines.engine import kind_of
from retrieval.search.index import Shard, build_shard, search_all, train_index
from retrieval.search.promise import choose_kind, keep, shards_to_try, try_shard
from retrieval.search.ranking import scan
from retrieval.search.settings import IndexConfig
from retrieval.search.shards import num_shards, write_shard, write_trained

_PART = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchBudgetConfig:
    """Which vectors, and what is asked of an index of them."""

    vectors: str = ""
    """An .npz file with `base` (N, D) and `query` (Q, D), of any type; they are L2-normalised."""
    embeddings: str = ""
    """Folder of embeddings instead (python -m ray_jobs.embed); the last of them ask."""
    queries: int = 500
    """Queries, half for the table and half for the budgets."""
    budgets: tuple[str, ...] = (
        "recall 0.95",
        "recall 0.99 latency 20ms",
        "recall 0.95 memory 0.25",
        "recall 0.9 memory 0.15 latency 5ms",
        "memory 0.5 latency 1ms",
    )
    """What is promised: recall, memory (a share of the vectors' own), latency."""


Ask = Callable[[np.ndarray], np.ndarray]
"""One query (D,) -> rows (K,)."""


def main(cfg: BenchBudgetConfig) -> dict[str, bool]:
    """Print both tables; whether each budget was kept."""
    base, queries = read(cfg)
    queries, fresh = np.array_split(queries, 2)
    print(f"{len(base):,} x {base.shape[1]}, {len(queries)} queries, k {K}, one thread\n")
    print(f"{'':44}{'recall@10':>10}{'p95 ms':>9}{'memory MB':>11}{'build s':>9}")
    exact = scan(queries, base, K).rows
    for line in (*ours(base, queries, exact), *others(base, queries, exact)):
        print(line, flush=True)
    print(f"\n{'budget':<44}{'chosen':<42}{'recall@10':>10}{'p95 ms':>9}{'memory MB':>11}  kept")
    return {budget: kept(budget, base, fresh) for budget in cfg.budgets}


def read(cfg: BenchBudgetConfig) -> tuple[np.ndarray, np.ndarray]:
    if not cfg.vectors:
        return load(SearchConfig(embeddings=cfg.embeddings, num_queries=cfg.queries))
    arrays = np.load(cfg.vectors)
    base, queries = (arrays[name].astype(np.float32) for name in ("base", "query"))
    return _unit(base), _unit(queries[: cfg.queries])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def row(name: str, recall: float, seconds: float, num_bytes: float, build: float | None = None) -> str:
    built = "" if build is None else f"{build:>9.1f}"
    return f"{name:<44}{recall:>10.4f}{1e3 * seconds:>9.3f}{num_bytes / 1e6:>11.1f}{built}"


def ours(base: np.ndarray, queries: np.ndarray, exact: np.ndarray) -> Iterator[str]:
    """Of each kind the settings that find more than any that is quicker."""
    kinds = [*candidates(IndexConfig(), *base.shape), settings(IndexConfig(factory="KDTree"))]
    for kind in kinds:
        with tempfile.TemporaryDirectory() as temp:
            folder, name = Folder.of(temp), f"shard{kind_of(kind[0].factory).suffix}"
            started = time.perf_counter()
            content = build_shard(kind[0], train_index(kind[0], base), base, np.arange(len(base)))
            built = time.perf_counter() - started
            beside = memory_of(kind[0], folder.write_bytes(name, content).num_bytes, *base.shape)
            seen = measure(kind, Shard.load(folder, name), queries, exact, np.full(len(queries), -1), beside, 0.999)
        best = 0.0
        for one in sorted(seen, key=lambda one: one.seconds):
            if one.recall > best + 0.005:
                best = one.recall
                yield row(name_of(one.config), one.recall, one.seconds, beside, built)


def others(base: np.ndarray, queries: np.ndarray, exact: np.ndarray) -> Iterator[str]:
    """Other libraries, those that are installed."""
    for library, make in (("sklearn", _sklearn), ("hnswlib", _hnswlib), ("usearch", _usearch), ("lancedb", _lancedb)):
        try:
            importlib.import_module(library)
        except ImportError:
            print(f"{library:<44}not installed")
            continue
        for name, ask, num_bytes, build in make(base):
            rows, seconds = [], []
            for query in queries:
                found, least = asked_twice(ask, query)
                rows.append(np.resize(found, K))
                seconds.append(least)
            yield row(name, recall_of(np.array(rows), exact), float(np.quantile(seconds, 0.95)), num_bytes, build)


def asked_twice(ask: Ask, query: np.ndarray) -> tuple[np.ndarray, float]:
    """What it finds, and the lesser of two times, as `measure` takes it."""
    started = time.perf_counter()
    found = ask(query)
    middle = time.perf_counter()
    ask(query)
    return found, min(middle - started, time.perf_counter() - middle)


Made = Iterator[tuple[str, Ask, float, float]]
"""Name, what answers, bytes in memory, seconds to build; of each setting."""


def _sklearn(base: np.ndarray) -> Made:
    from sklearn.neighbors import NearestNeighbors

    for how in ("brute", "kd_tree"):
        started = time.perf_counter()
        made = NearestNeighbors(n_neighbors=K, algorithm=how, n_jobs=1).fit(base)
        ask = lambda query, made=made: made.kneighbors(query[None], return_distance=False)[0]  # noqa: E731
        yield f"scikit-learn {how}", ask, base.nbytes * (1 if how == "brute" else 3), time.perf_counter() - started


def _hnswlib(base: np.ndarray) -> Made:
    import hnswlib  # pyright: ignore[reportMissingImports]

    started = time.perf_counter()
    made: Any = hnswlib.Index(space="ip", dim=base.shape[1])
    made.init_index(max_elements=len(base), M=16, ef_construction=200, random_seed=0)
    made.set_num_threads(1)
    made.add_items(base)
    built = time.perf_counter() - started
    for ef in (16, 64, 256):
        made.set_ef(ef)
        yield f"hnswlib M 16 ef {ef}", lambda query: made.knn_query(query, k=K)[0][0], made.index_file_size(), built


def _usearch(base: np.ndarray) -> Made:
    from usearch.index import Index  # pyright: ignore[reportMissingImports]

    for dtype in ("f32", "i8"):
        started = time.perf_counter()
        made: Any = Index(ndim=base.shape[1], metric="ip" if dtype == "f32" else "cos", dtype=dtype)
        made.add(np.arange(len(base)), base, threads=1)
        built = time.perf_counter() - started
        for expansion in (16, 64, 256):
            made.expansion_search = expansion
            ask = lambda query, made=made: np.asarray(made.search(query, K, threads=1).keys, np.int64)  # noqa: E731
            yield f"usearch {dtype} expansion {expansion}", ask, made.serialized_length, built


def _lancedb(base: np.ndarray) -> Made:
    import lancedb  # pyright: ignore[reportMissingImports]

    with tempfile.TemporaryDirectory() as temp:
        listed = pa.FixedSizeListArray.from_arrays(pa.array(base.reshape(-1)), base.shape[1])
        table = lancedb.connect(temp).create_table("t", pa.table({"row": np.arange(len(base)), "vector": listed}))
        started = time.perf_counter()
        lists = 1 << int(np.log2(4 * np.sqrt(len(base))))
        table.create_index(metric="dot", index_type="IVF_PQ", num_partitions=lists, num_sub_vectors=base.shape[1] // 4)
        built = time.perf_counter() - started
        size = sum(file.stat().st_size for file in Path(temp).rglob("_indices/**/*") if file.is_file())
        for probes, refine in ((16, 4), (64, 10)):

            def ask(query: np.ndarray, probes: int = probes, refine: int = refine) -> np.ndarray:
                search = table.search(query).distance_type("dot").nprobes(probes).refine_factor(refine)
                return search.select(["row"]).limit(K).to_arrow()["row"].to_numpy()

            yield f"lancedb IVF_PQ nprobes {probes} refine {refine} (disk)", ask, size, built


def kept(budget: str, base: np.ndarray, queries: np.ndarray) -> bool:
    """Build by a budget as the job does, ask it queries that it has not seen, print the line."""
    words = budget.split()
    given: dict[str, Any] = dict(zip(words[::2], words[1::2], strict=True))
    if "recall" in given:
        given["recall"] = float(given["recall"])
    if "memory" in given:
        given["memory"] = f"{float(given['memory']) * base.nbytes / 1e6:.3f}MB"
    config, dim = IndexConfig(**given), base.shape[1]
    with tempfile.TemporaryDirectory() as temp:
        embeddings, out = stored(Path(temp), base)
        chosen, _ = choose_kind(embeddings, out, config, dim)
        write_trained(embeddings, out, chosen, dim)
        shards = num_shards(chosen, len(base), dim)
        names = [str(write_shard(embeddings, out, chosen, dim, shard, shards)["name"]) for shard in range(shards)]
        tried = [try_shard(embeddings, out, chosen, dim, shard, shards) for shard in shards_to_try(shards)]
        promised = keep(out, chosen, tried, len(base), shards)
        opened = [Shard.load(out, name) for name in names]
        rows, seconds = [], []
        for query in queries:
            found, least = asked_twice(lambda query: search_all(opened, query[None], K, None).rows[0], query)
            rows.append(found)
            seconds.append(least)
        recall = recall_of(np.array(rows), scan(queries, base, K).rows)
        slow = float(np.quantile(seconds, 0.95))
        name = name_of(dataclasses.replace(chosen, **chosen_settings(out)))
    held = recall >= (config.recall or 0) - 0.01
    held &= slow <= (config.max_seconds or np.inf) and promised["bytes"] <= (config.max_bytes or np.inf)
    print(
        f"{asked(config):<44}{name:<42}{recall:>10.4f}{1e3 * slow:>9.3f}{promised['bytes'] / 1e6:>11.1f}  {held}",
        flush=True,
    )
    return held


def stored(root: Path, base: np.ndarray) -> tuple[Folder, Folder]:
    """The vectors as embeddings in parts, and the rows of an index of them: row i is vector i."""
    embeddings, out = Folder.of(root / "embeddings"), Folder.of(root / "index")
    names = np.array([f"{number:012d}.jpg" for number in range(len(base))])
    for part, start in enumerate(range(0, len(base), _PART)):
        write_part(embeddings, part, names[start : start + _PART].tolist(), base[start : start + _PART])
    rows = np.arange(len(base))
    table: dict[str, Any] = {"image_id": names, "label": pa.nulls(len(base), pa.string())}
    table |= {"part": (rows // _PART).astype(np.int32), "row_in_part": (rows % _PART).astype(np.int32)}
    out.write_table(IDS, pa.table(table))
    return embeddings, out


if __name__ == "__main__":
    main(tyro.cli(BenchBudgetConfig, description=__doc__))
