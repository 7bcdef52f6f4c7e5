"""What it costs to spread an index over processes of Ray Serve, beside the same index in this one.

    python benchmarks/bench_parts.py
    python benchmarks/bench_parts.py --num 1000000 --parts 2 4 --factory KDTree

Both search the same vectors with the same queries, one after another; that their answers are the same to the last bit
is checked first. Memory is what of the index is resident in a process after the queries, mapped files included.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval.search.index import Searcher
from serve.parts.fanout import Parts
from serve.parts.messages import IndexName
from serve.parts.part import Part
from serve.settings import ServeArgs
from tests.support.vectors import clustered, index_of

_ALLOWED = 0.1
_QUERIES = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """How large an index, over how many parts."""

    num: int = 200_000
    """Vectors."""
    dim: int = 128
    """Their length."""
    factory: str = "Flat"
    """The index."""
    parts: tuple[int, ...] = (2, 3)
    """Over how many parts."""


class Measured(Part):
    """A part that says what memory it takes."""

    def __init__(self, args: ServeArgs, number: int) -> None:
        super().__init__(args, number)
        self._before = resident_bytes()

    async def memory(self) -> int:
        return resident_bytes() - self._before


def resident_bytes() -> int:
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Rss:")) * 1024


def p50(search: Any, queries: np.ndarray, allowed: np.ndarray | None = None) -> float:
    """Milliseconds of one query, asked alone."""
    seconds = []
    for query in queries:
        began = time.perf_counter()
        search(query[None], 10, allowed=allowed)
        seconds.append(time.perf_counter() - began)
    return 1e3 * float(np.median(seconds))


def spread(cfg: Config, num: int, name: IndexName, whole: Searcher, queries: np.ndarray, allowed: np.ndarray) -> str:
    """A line about `num` parts."""
    from ray import serve

    args = ServeArgs(workspace=".", index_parts=num, replica_cpus=0.1, check_files=False)
    deployment: Any = serve.deployment(Measured)
    handles = [
        serve.run(
            deployment.options(name=f"Part{part}", ray_actor_options={"num_cpus": 0.1}).bind(args, part),
            name=f"part{part}",
            route_prefix=None,
        )
        for part in range(num)
    ]
    parts = Parts(handles, 30.0)
    try:
        spread = Searcher.open(name.uri, shards=[parts.open(name)])
        for mask in (None, allowed):
            for query in queries[:20]:
                want, got = whole.search(query[None], 10, allowed=mask), spread.search(query[None], 10, allowed=mask)
                assert np.array_equal(want.rows, got.rows) and np.array_equal(want.scores, got.scores)
        times = [(p50(whole.search, queries, mask), p50(spread.search, queries, mask)) for mask in (None, allowed)]
        held = [handle.memory.remote().result() / 2**20 for handle in handles]
    finally:
        parts.close()
        for part in range(num):
            serve.delete(f"part{part}")
    (one, many), (one_filtered, many_filtered) = times
    return (
        f"| {num} | {one:.2f} | {many:.2f} | {one_filtered:.2f} | {many_filtered:.2f} | "
        f"{min(held):.0f} to {max(held):.0f} |"
    )


def main(cfg: Config) -> None:
    """Prints a table."""
    queries = clustered(_QUERIES, cfg.dim, seed=1)
    with tempfile.TemporaryDirectory(prefix="parts-") as folder:
        index = index_of(Path(folder) / "i", clustered(cfg.num, cfg.dim), max(cfg.parts), factory=cfg.factory)
        before = resident_bytes()
        whole = Searcher.open(index)
        whole.search(queries, 10)
        held = (resident_bytes() - before) / 2**20
        allowed = np.random.default_rng(0).random(cfg.num) < _ALLOWED
        name = IndexName(index.uri, whole.manifest.fingerprint)
        print(f"{cfg.num:,} x {cfg.dim}, {cfg.factory}; whole: {held:.0f} MiB resident")
        print("| parts | ms a query, whole | in parts | with a filter, whole | in parts | MiB resident, a part |")
        print("|---|---|---|---|---|---|")
        import ray

        os.environ |= {"RAY_worker_niceness": "0"}  # as `python -m serve` has it
        ray.init(include_dashboard=False, logging_level=logging.WARNING, log_to_driver=False)
        with contextlib.ExitStack() as stack:
            stack.callback(ray.shutdown)
            for num in cfg.parts:
                print(spread(cfg, num, name, whole, queries, allowed), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
