"""What a second node costs, what of the photos passes through Ray, and whether the driver grows with the collection.

    python benchmarks/bench_cluster.py
    python benchmarks/bench_cluster.py --rounds 5 --rows 1000 100000

1. Ingest and embed on one node of two cores and on two nodes of one core, in turn, each for N and for 3 N photos: the
   difference of the two, start-up taken away, over that on one node. Nodes are raylets of this machine. Of time, and of
   processor time, which also holds where others use the machine.
2. Bytes that Ray's object store was given for a photo, by the raylets' own count, on two nodes, with Ray told to send
   no result and no argument past it; beside the bytes of the photo as it is stored.
3. The most memory of the driver of embed and of build_index for few rows and for many, each in a process of its own.
   The photos are 16 pixels wide and the network is tiny; the jobs are the real ones.
"""

from __future__ import annotations

import contextlib
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processor_time import Meter

ROOT = Path(__file__).resolve().parents[1]

Measured = dict[str, tuple[float, float]]
"""Job -> seconds, and seconds of processors, of all processes."""

DRIVER = """
import sys
from pathlib import Path
from ray_jobs import build_index, embed
from retrieval.search.settings import IndexConfig

where = sys.argv[1]
of = {"collection": where + "/collection"}
if sys.argv[2] == "embed":
    embed.main(embed.EmbedConfig(**of, model=where + "/model", out=where + "/embeddings", device="cpu"))
else:
    index = IndexConfig(num_shards=2)
    of |= {"embeddings": where + "/embeddings", "out": where + "/index"}
    build_index.main(build_index.BuildIndexConfig(**of, index=index))
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """How much to measure."""

    photos: int = 256
    """N of the first measurement."""
    part_size: int = 32
    """Photos a part there."""
    rounds: int = 3
    """How often the first measurement is made; the median is given."""
    rows: tuple[int, ...] = (1_000, 100_000)
    """Photos of the third measurement."""


@contextlib.contextmanager
def cluster(nodes: int, cores: int, **system: Any) -> Iterator[None]:
    """Of so many nodes with so many cores each; this process is its driver."""
    import ray
    from ray.cluster_utils import Cluster

    each: dict[str, Any] = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": 256 * 2**20}
    each["dashboard_agent_listen_port"] = None  # any that is free
    made = Cluster(initialize_head=True, head_node_args={**each, "_system_config": system})
    try:
        for _ in range(nodes - 1):
            made.add_node(**each)
        ray.init(address=made.address, logging_level=logging.ERROR, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        made.shutdown()


def ingest(source: Path, out: Path, part_size: int) -> None:
    from ray_jobs.ingest import IngestConfig, main
    from retrieval.images.settings import PrepareConfig

    prepare = PrepareConfig(detector="haar", size=160)
    main(IngestConfig(source=str(source), out=str(out), part_size=part_size, prepare=prepare))


def embed(collection: Path, model: Path, out: Path) -> None:
    from ray_jobs.embed import EmbedConfig, main

    main(
        EmbedConfig(collection=str(collection), model=str(model), out=str(out), precision="fp32", engine="torch")
    )  # one engine and one format for both sizes


def build_index(collection: Path, embeddings: Path, out: Path) -> None:
    from ray_jobs.build_index import BuildIndexConfig, main
    from retrieval.search.settings import IndexConfig

    main(
        BuildIndexConfig(
            embeddings=str(embeddings), collection=str(collection), out=str(out), index=IndexConfig(num_shards=4)
        )
    )


def timed(work: Callable[[], None]) -> tuple[float, float]:
    started = time.monotonic()
    with Meter() as meter:
        work()
    return time.monotonic() - started, meter.seconds


def draw(root: Path, photos: int) -> dict[int, Path]:
    """Sources of N and 3 N drawn faces, and a network: MobileNet-V2, whole, at 160 pixels."""
    from retrieval.data.demo.faces import draw_collection
    from retrieval.models import bundle
    from retrieval.models.settings import ModelConfig

    sources = {}
    for num in (photos, 3 * photos):
        sources[num] = root / f"photos-{num}"
        draw_collection(sources[num], num_identities=num // 8, images_per_identity=8)
    config = ModelConfig(backbone="mobilenet_v2", head="none", image_size=160)
    bundle.save_bundle(bundle.start(config, weights="none", preparation={}), root / "model")
    return sources


def measure_tax(cfg: Config, root: Path, sources: dict[int, Path]) -> None:
    """Prints a row a job."""
    few, many = sources
    taxes: dict[str, list[tuple[float, float]]] = {"ingest": [], "embed": []}
    each: dict[str, list[float]] = {"ingest": [], "embed": []}
    for turn in range(cfg.rounds):
        differences: dict[int, Measured] = {}
        for nodes in (1, 2) if turn % 2 == 0 else (2, 1):  # neither is always the first
            place = root / f"{turn}-{nodes}"
            took: dict[int, Measured] = {}
            with cluster(nodes, 2 // nodes):
                # A first job, whose workers have imported what all import; then few and many in the same cluster.
                ingest(sources[few], place / "warm", cfg.part_size)
                for num in (few, many):
                    at = place / str(num)
                    took[num] = {
                        "ingest": timed(lambda num=num, at=at: ingest(sources[num], at / "collection", cfg.part_size)),
                        "embed": timed(lambda at=at: embed(at / "collection", root / "model", at / "embeddings")),
                    }
            pairs = {job: (took[few][job], took[many][job]) for job in taxes}
            differences[nodes] = {job: (b[0] - a[0], b[1] - a[1]) for job, (a, b) in pairs.items()}
        for job in taxes:
            one, two = differences[1][job], differences[2][job]
            taxes[job].append((two[0] / one[0] - 1, two[1] / one[1] - 1))
            each[job].append(1e3 * one[1] / (many - few))
    print("| job | ms of processor a photo, one node | two nodes: processor time | time | each round |")
    print("|---|---|---|---|---|")
    for job, found in taxes.items():
        time_tax, processor_tax = (statistics.median(tax[at] for tax in found) for at in (0, 1))
        rounds = ", ".join(f"{tax[1]:+.1%}" for tax in found)
        print(f"| {job} | {statistics.median(each[job]):.1f} | {processor_tax:+.1%} | {time_tax:+.1%} | {rounds} |")


def stored_bytes() -> int:
    """That Ray's object stores, all together, were given so far."""
    import ray
    from ray._private.internal_api import node_stats

    nodes = [node for node in ray.nodes() if node["Alive"]]
    told = [node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False) for node in nodes]
    return sum(one.store_stats.cumulative_created_bytes for one in told)


def measure_bytes(cfg: Config, root: Path, source: Path, num: int) -> None:
    """Prints a row a job."""
    collection, place = root / "bytes/collection", root / "bytes"
    work = {
        "ingest": lambda: ingest(source, collection, cfg.part_size),
        "embed": lambda: embed(collection, root / "model", place / "embeddings"),
        "build_index": lambda: build_index(collection, place / "embeddings", place / "index"),
    }
    made = {"ingest": "images", "embed": "", "build_index": ""}
    outputs = {"ingest": collection, "embed": place / "embeddings", "build_index": place / "index"}
    print("| job | bytes a photo through the object store | bytes a photo that it wrote |")
    print("|---|---|---|")
    with cluster(2, 1, max_direct_call_object_size=1):
        for job, do in work.items():
            before = stored_bytes()
            do()
            wrote = sum(file.stat().st_size for file in (outputs[job] / made[job]).rglob("*") if file.is_file())
            print(f"| {job} | {(stored_bytes() - before) / num:.0f} | {wrote / num:.0f} |")


def make_tiny(root: Path, rows: int, part_size: int = 256) -> None:
    """A sealed collection of so many photos, 16 pixels wide, and a network that takes them."""
    import numpy as np

    from retrieval.artifacts import manifest
    from retrieval.artifacts.collection import CATALOG_SCHEMA, IMAGE_OPTIONS, IMAGE_SCHEMA
    from retrieval.artifacts.folder import Folder, part_name
    from retrieval.images.pixels import encode_jpeg
    from retrieval.models import bundle
    from retrieval.models.engines.frozen import from_file
    from retrieval.models.settings import ModelConfig
    from tests.support.frozen import tiny, write

    out = Folder.of(root / "collection")
    rng = np.random.default_rng(0)
    jpegs = [encode_jpeg(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)) for _ in range(64)]
    catalog = []
    for start in range(0, rows, part_size):
        names = [f"{row // 1000:04d}/{row:07d}.jpg" for row in range(start, min(start + part_size, rows))]
        photos = [
            {"image_id": name, "jpeg": jpegs[at % 64], "width": 16, "height": 16} for at, name in enumerate(names)
        ]
        part = start // part_size
        table = pa.Table.from_pylist(photos, schema=IMAGE_SCHEMA)
        out.write_table(f"images/{part_name(part)}", table, about={}, **IMAGE_OPTIONS)
        catalog += [
            {"image_id": name, "label": name[:4], "split": "gallery", "part": part, "row": row}
            for row, name in enumerate(names)
        ]
    out.write_table("catalog.parquet", pa.Table.from_pylist(catalog, schema=CATALOG_SCHEMA), about={})
    manifest.seal(out, kind="collection", config={}, inputs={}, counts={"stored": rows})
    write(root / "net", tiny(16), size=16)
    bundle.save_bundle(from_file(ModelConfig(backbone=f"onnx:{root / 'net'}", image_size=16)), root / "model")


def measure_driver(cfg: Config, root: Path) -> None:
    """Prints a row a job."""
    import ray

    most: dict[str, list[float]] = {"embed": [], "build_index": []}
    for rows in cfg.rows:
        make_tiny(root / str(rows), rows)
    with cluster(1, 2):
        address = ray.get_runtime_context().gcs_address
        for rows in cfg.rows:
            for job in most:
                command = [sys.executable, "-c", DRIVER, str(root / str(rows)), job]
                env = os.environ | {"RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)}
                done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(done.stderr)
                most[job].append(int(done.stdout.split()[-1]) / 1024)
    print(f"| driver of | {' | '.join(f'{rows:,} rows, MiB' for rows in cfg.rows)} | grew by |")
    print("|---" * (len(cfg.rows) + 2) + "|")
    for job, found in most.items():
        print(f"| {job} | {' | '.join(f'{mib:.0f}' for mib in found)} | {found[-1] - found[0]:+.0f} MiB |")


def main(cfg: Config) -> None:
    """Prints three tables."""
    with tempfile.TemporaryDirectory(prefix="bc-", dir="/tmp") as folder:
        root = Path(folder)
        (root / "ray" / "ray").mkdir(parents=True)
        os.environ |= {"RAY_TMPDIR": str(root / "ray"), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        os.environ |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        os.environ.pop("RAY_ADDRESS", None)
        sources = draw(root, cfg.photos)
        measure_driver(cfg, root / "tiny")
        measure_bytes(cfg, root, sources[cfg.photos], cfg.photos)
        measure_tax(cfg, root, sources)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
