"""What building a shard costs: memory against the finished file, time against plain FAISS, and equal answers.

    python benchmarks/bench_index_build.py --num 60000 --dim 128

Each shard is built in a process of its own, from parts of 256 as embeddings lie on storage. Memory is the most that the
process held above what it had when its libraries were loaded. Plain FAISS is one process that reads the same parts,
adds all at once and writes the file; both in seconds of processor time, one thread each.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval.artifacts.embeddings import read_rows, write_part
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import IDS, TRAINED
from retrieval.search.index import Shard, search_all
from retrieval.search.settings import IndexConfig
from retrieval.search.shards import write_shard, write_trained

_PART = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchIndexBuildConfig:
    """Build shards of random vectors."""

    num: int = 60_000
    """Vectors of the shard that is measured."""
    dim: int = 128
    """Numbers of a vector."""
    factories: tuple[str, ...] = ("Flat", "IVF256,Flat", "IVF256,PQ16", "HNSW32", "KDTree")
    """Kinds of index."""
    slow: int = 15_000
    """Vectors of kinds that take long (HNSW), and of those whose answers are compared."""


def make(root: Path, num: int, dim: int) -> tuple[Folder, Folder]:
    """Embeddings in parts, in no order of name, and the list of rows of an index of them all."""
    rng = np.random.default_rng(0)
    embeddings, out = Folder.of(root / "embeddings"), Folder.of(root / "index")
    names = np.array([f"folder/{number:012d}.jpg" for number in rng.permutation(num)])
    for part, start in enumerate(range(0, num, _PART)):
        mine = names[start : start + _PART]
        vectors = rng.normal(size=(len(mine), dim)).astype(np.float32)
        write_part(embeddings, part, mine.tolist(), vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    order = np.argsort(names)
    table: dict[str, Any] = {"image_id": names[order], "label": pa.nulls(num, pa.string())}
    table |= {"part": (order // _PART).astype(np.int32), "row_in_part": (order % _PART).astype(np.int32)}
    out.write_table(IDS, pa.table(table), row_group_size=1 << 16)  # as `assign_rows`
    return embeddings, out


def apart(work: Callable[..., Any], *args: Any) -> Any:
    """Call it in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args).result()


def memory(name: str) -> int:
    """Bytes of VmRSS, what this process holds now, or VmHWM, the most it held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


def warm_up(dim: int) -> None:
    """Load libraries, and what they keep for themselves."""
    with tempfile.TemporaryDirectory() as temp:
        write_shard(*make(Path(temp), 300, dim), IndexConfig(factory="KDTree"), dim, 0, 1)


def build(embeddings: Folder, out: Folder, config: IndexConfig, dim: int) -> tuple[int, int, float]:
    """Bytes held at most above the start, bytes of the file, seconds of processor time."""
    warm_up(dim)
    Path("/proc/self/clear_refs").write_text("5")  # the most it held counts from here
    before, start = memory("VmRSS"), time.process_time()
    done = write_shard(embeddings, out, config, dim, 0, 1)
    return memory("VmHWM") - before, int(done["bytes"]), time.process_time() - start


def plain(embeddings: Folder, out: Folder, dim: int) -> tuple[float, float]:
    """Seconds of processor time to read, add at once and write; and those of adding alone."""
    warm_up(dim)
    faiss.omp_set_num_threads(1)
    index = faiss.deserialize_index(np.frombuffer(out.read_bytes(TRAINED), np.uint8))
    start = time.process_time()
    ids = out.read_table(IDS)
    vectors = read_rows(embeddings, ids["image_id"], ids["part"].to_numpy(), ids["row_in_part"].to_numpy(), dim)
    read = time.process_time()
    index.add(vectors)
    added = time.process_time()
    faiss.write_index(index, out.file("plain.bin"))
    return time.process_time() - start, added - read


def equal(root: Path, factory: str, dim: int) -> bool:
    """Whether 1, 3 and 8 shards give the same rows and scores; of lists, where all are visited."""
    embeddings, out = Folder.of(root / "embeddings"), Folder.of(root / "index")
    config = IndexConfig(factory=factory, nprobe=1 << 16)
    out.remove(TRAINED)
    write_trained(embeddings, out, config, dim)
    queries, found = np.random.default_rng(1).normal(size=(50, dim)).astype(np.float32), []
    for shards in (1, 3, 8):
        made = []
        for shard in range(shards):
            name = str(write_shard(embeddings, out, config, dim, shard, shards)["name"])
            made.append(Shard.load(out, name, mmap=False))
            out.remove(name)
        found.append(search_all(made, queries, 10, None))
    return all(
        (one.rows == found[0].rows).all() and np.allclose(one.scores, found[0].scores, atol=1e-5) for one in found
    )


def main(cfg: BenchIndexBuildConfig) -> None:
    print(f"{'index':<14}{'vectors':>9}{'file, MB':>10}{'memory':>9}{'rate':>7}{'add alone':>11}  1, 3, 8 shards equal")
    with tempfile.TemporaryDirectory() as temp:
        large, small = make(Path(temp) / "large", cfg.num, cfg.dim), make(Path(temp) / "small", cfg.slow, cfg.dim)
        for factory in cfg.factories:
            (embeddings, out), num = (small, cfg.slow) if "HNSW" in factory else (large, cfg.num)
            config = IndexConfig(factory=factory)
            out.remove(TRAINED)
            write_trained(embeddings, out, config, cfg.dim)
            peak, size, seconds = apart(build, embeddings, out, config, cfg.dim)
            rates = f"{'':>18}"
            if factory != "KDTree":
                whole, adding = apart(plain, embeddings, out, cfg.dim)
                rates = f"{whole / seconds:>7.2f}{adding / seconds:>11.2f}"
            for name in [name for name in out.list() if name.startswith("shard-")]:
                out.remove(name)
            same = "" if "HNSW" in factory else equal(Path(temp) / "small", factory, cfg.dim)
            print(f"{factory:<14}{num:>9}{size / 1e6:>10.1f}{peak / size:>9.2f}{rates}  {same}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(BenchIndexBuildConfig))
