"""What a run takes here: processor time, seconds, bytes and memory of all its processes; and the machine's pace."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processor_time import Meter, below


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a step took: seconds of processors, of all processes; seconds on the clock; bytes that it left; and bytes
    that the process which held most had for itself."""

    processor: float
    wall: float
    stored: int = 0
    held: float = 0.0


def measured(work: Callable[[], Any], out: Path | None = None) -> Cost:
    """All processes from here down, memory of those below this one; `out` is where it writes."""
    over, most = threading.Event(), [0.0]

    def watch() -> None:
        while not over.wait(0.2):
            most[0] = max(most[0], max(map(held, below(os.getpid())[1:]), default=0.0))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    started = time.perf_counter()
    with Meter() as meter:
        work()
    wall = time.perf_counter() - started
    over.set()
    watcher.join()
    return Cost(processor=meter.seconds, wall=wall, stored=size_of(out) if out else 0, held=most[0])


def apart(work: Callable[..., Any], *args: Any) -> Cost:
    """A function in a process of its own, whose start does not count."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_alone, work, *args).result()


def _alone(work: Callable[..., Any], *args: Any) -> Cost:
    over, most = threading.Event(), [0.0]

    def watch() -> None:
        while not over.wait(0.02):
            most[0] = max(most[0], held(os.getpid()))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    started, wall = time.process_time(), time.perf_counter()
    work(*args)
    done = Cost(processor=time.process_time() - started, wall=time.perf_counter() - wall, held=most[0])
    over.set()
    watcher.join()
    return done


def held(pid: int) -> float:
    """Anonymous memory of a process: what it has mapped of files is the system's, and given back."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().partition("RssAnon:")[2].split()
    except OSError:  # it has ended
        return 0.0
    return 1024.0 * int(lines[0]) if lines else 0.0


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@contextmanager
def cluster(root: Path) -> Iterator[None]:
    """Ray here, for all jobs in turn, as a pipeline has it: on two cores, which the costs are said for."""
    import logging

    import ray

    (root / "ray").mkdir(parents=True, exist_ok=True)
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    os.environ |= {"RAY_worker_niceness": "0"}  # else others that work on the machine come before it
    os.environ.pop("RAY_ADDRESS", None)
    where = {"_temp_dir": str(root / "ray"), "object_store_memory": 256 << 20}
    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False, **where)
    try:
        yield
    finally:
        ray.shutdown()


def pace(model: Path) -> float:
    """Processor seconds of one piece of work, the same each time: where others use the machine's caches, or the machine
    is another one, all work takes more of them, or less."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_piece_of_work, model).result()


def _piece_of_work(model: Path) -> float:
    import hashlib
    import json

    from retrieval.artifacts.folder import Folder
    from retrieval.images.pixels import encode_jpeg
    from retrieval.models.embedder import Embedder

    embedder = Embedder(Folder.of(model), precision="fp32", num_threads=1)
    rng = np.random.default_rng(0)
    jpegs = [encode_jpeg(rng.integers(0, 256, (112, 112, 3)).astype(np.uint8)) for _ in range(8)]
    vectors = rng.normal(size=(4000, 128)).astype(np.float32)
    embedder.embed_jpegs(jpegs)
    started = time.process_time()
    for _ in range(4):
        embedder.embed_jpegs(jpegs)
        np.sort(vectors @ vectors.T, axis=1)
        rows = json.loads(json.dumps([{"image_id": f"{row:09d}", "row": row} for row in range(50_000)]))
        hashlib.sha256("".join(row["image_id"] for row in rows).encode() * 50).hexdigest()
    return time.process_time() - started
