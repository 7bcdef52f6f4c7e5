"""Time and memory of grouping at growing numbers of photos: neighbours by the index, then the merging of links.

    python benchmarks/bench_group.py                                # 10,000 and 100,000 drawn vectors
    python benchmarks/bench_group.py --sizes 5000 --factories Flat

Vectors are drawn by people: how many photos each has follows a power law (most 1 to 10, some hundreds), and how alike
they are is as SFace has it on LFW: cosine about 0.64 within a person (0.37 to 0.82 in 9 of 10), 0.08 (standard
deviation 0.09) between two. Each size is a process of its own, one thread; memory is the peak of each stage above
what the libraries and the vectors take (Linux). All that the job does but comparing pixels and drawing pages.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before numpy reads them

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval.artifacts.embeddings import KIND as EMBEDDINGS
from retrieval.artifacts.embeddings import write_part
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import IDS, KIND, settings_of
from retrieval.artifacts.manifest import begin, seal
from retrieval.evaluation.clustering import clustering_metrics
from retrieval.grouping.links import LinkFinder, read_links
from retrieval.grouping.merging import cohesion, merge
from retrieval.search.engines.engine import kind_of
from retrieval.search.index import build_shard, train_index
from retrieval.search.settings import IndexConfig

_DIM, _PART = 128, 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What to group."""

    sizes: tuple[int, ...] = (10_000, 100_000)
    """Photos."""
    factories: tuple[str, ...] = ("Flat", "IVF1024,Flat")
    """Kinds of index to find neighbours with; those of an IVF with fewer lists at few photos."""
    neighbours: int = 50
    """Links of each photo, at most."""
    threshold: float = 0.42
    """Cosine."""
    seed: int = 0
    """Draws the vectors."""
    only: str = ""
    """For the processes that this one starts: SIZE:FACTORY."""


def main(cfg: Config) -> list[dict[str, float | str]]:
    """Run each size, print the table, return its rows."""
    if cfg.only:
        size, _, factory = cfg.only.partition(":")
        print(json.dumps(measure(cfg, int(size), factory)))
        return []
    columns = (
        "photos",
        "people",
        "links",
        "link_s",
        "merge_s",
        "total_s",
        "link_mb",
        "merge_mb",
        "precision",
        "recall",
    )
    print(f"{'index':16}" + "".join(f"{name:>11}" for name in columns))
    rows = []
    for factory in cfg.factories:
        for size in cfg.sizes:
            how = ["--neighbours", str(cfg.neighbours), "--threshold", str(cfg.threshold), "--seed", str(cfg.seed)]
            command = [sys.executable, __file__, "--only", f"{size}:{factory}", *how]
            row = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            )
            rows.append(row)
            print(f"{factory:16}" + "".join(f"{row[name]:>11,}" for name in columns), flush=True)
    return rows


def measure(cfg: Config, size: int, factory: str) -> dict[str, float | int | str]:
    """One size by one kind of index, as the job's tasks do it one after another."""
    vectors, labels = draw(size, cfg.seed)
    with tempfile.TemporaryDirectory() as temp:
        root = Folder.of(temp)
        index, embeddings, out = make(root, vectors, factory)
        before, started = forget_peak(), time.perf_counter()
        find = LinkFinder(index, embeddings, out, cfg.neighbours, cfg.threshold)
        names = [str(find(part)["name"]) for part in range(-(-size // _PART))]
        linked, after_links, before_merge = time.perf_counter(), status_mb("VmHWM"), forget_peak()
        links = read_links(out, names, size)
        groups = merge(sums := vectors.copy(), links.low, links.high, cfg.threshold)
        cohesion([(np.arange(size), vectors)], groups, sums)
        ended, after_merge = time.perf_counter(), status_mb("VmHWM")
    found = clustering_metrics(groups.tolist(), labels.tolist())
    return {
        "photos": size,
        "people": found.num_labels,
        "links": len(links),
        "link_s": round(linked - started, 1),
        "merge_s": round(ended - linked, 1),
        "total_s": round(ended - started, 1),
        "link_mb": round(after_links - before),
        "merge_mb": round(after_merge - before_merge),
        "precision": round(found.bcubed_precision, 4),
        "recall": round(found.bcubed_recall, 4),
    }


def draw(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(size, 128) float32, L2-normalised, and (size,) whom each shows, in no order."""
    rng = np.random.default_rng(seed)
    counts = np.minimum(rng.pareto(1.1, size) * 2 + 1, 500).astype(np.int64)
    counts = counts[: int(np.searchsorted(np.cumsum(counts), size)) + 1]
    labels = np.repeat(np.arange(len(counts)), counts)[:size]
    common = rng.normal(size=_DIM)
    people = rng.normal(size=(len(counts), _DIM)) + 0.35 * common
    spread = (0.5 + rng.uniform(size=size) ** 2)[:, None]  # some photos are worse than others
    vectors = people[labels] + spread * rng.normal(size=(size, _DIM))
    order = rng.permutation(size)
    vectors = vectors[order] / np.linalg.norm(vectors[order], axis=1, keepdims=True)
    return vectors.astype(np.float32), labels[order]


def make(root: Folder, vectors: np.ndarray, factory: str) -> tuple[Folder, Folder, Folder]:
    """Index, embeddings and a folder for links, on disk as the jobs leave them."""
    index, embeddings, num = root / "index", root / "embeddings", len(vectors)
    if factory.startswith("IVF"):  # at least 39 vectors a list
        factory = f"IVF{min(1024, num // 39)},Flat"
    config, ids = IndexConfig(factory=factory), [f"{row:09d}.jpg" for row in range(num)]
    begin(embeddings, kind=EMBEDDINGS, config={}, inputs={})
    for part in range(-(-num // _PART)):
        mine = slice(part * _PART, (part + 1) * _PART)
        write_part(embeddings, part, ids[mine], vectors[mine])
    seal(embeddings, kind=EMBEDDINGS, config={}, inputs={}, counts={"num": num, "dim": _DIM})
    sealed = settings_of(["gallery"], {"factory": factory})
    begin(index, kind=KIND, config=sealed, inputs={})
    rows = np.arange(num)
    built = build_shard(config, train_index(config, vectors), vectors, rows)
    index.write_bytes(f"shard-00000{kind_of(factory).suffix}", built)
    table = {"image_id": ids, "label": pa.nulls(num, pa.string())}
    table |= {"part": (rows // _PART).astype(np.int32), "row_in_part": (rows % _PART).astype(np.int32)}
    index.write_table(IDS, pa.table(table))
    seal(index, kind=KIND, config=sealed, inputs={}, counts={"num": num})
    return index, embeddings, root / "out"


def forget_peak() -> float:
    """Begin a new peak of memory (Linux). Returns the MB that are held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return status_mb("VmRSS")


def status_mb(name: str) -> float:
    """VmRSS, what is held; VmHWM, the most since `forget_peak`."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
