"""What ingest costs beside its kernel: a plain loop of it, tiny photos, a resume, and the driver alone.

    python benchmarks/bench_ingest_parts.py                        # 20,000 drawn photos of 64 pixels
    python benchmarks/bench_ingest_parts.py --source LFW           # these, and all photos of a local source
    python benchmarks/bench_ingest_parts.py --packed               # the tiny ones also from tars and from Parquet

1. The Ray job against a plain loop of the same kernel over as many processes as Ray has CPUs, in turn, by the clock and
   by processor time (of the job that of everything: driver, workers, Ray's own processes). Both start with their
   processes up. The loop reads each photo, prepares it and writes a JPEG; the job's time is all of `main`.
2. Bytes that a second run reads of a collection whose parts are all done: before its seal, and sealed.
3. Parts of no work at all: what the driver can hand out, and how many cores that keeps busy.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import multiprocessing
import os
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processor_time import Meter
from ray_jobs.ingest import IngestConfig, main
from ray_jobs.runtime.parallel.parts import run_parts
from ray_jobs.runtime.session import session
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.data import catalog
from retrieval.data.ingestion import ingest_part
from retrieval.data.listing import list_source
from retrieval.data.settings import SplitConfig
from retrieval.images.detectors.face import FaceDetector
from retrieval.images.faces import make_detector
from retrieval.images.pixels import BadImage, limit_threads
from retrieval.images.preparation import prepare
from retrieval.images.settings import PrepareConfig
from retrieval.models.known_weights import find

_TINY = PrepareConfig(crop="none", size=64)
_KERNEL_MS = 20.0  # of one photo on one core: what cores are told by


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchConfig:
    """Measure what is not the kernel."""

    source: str | None = None
    """Local photographs of people, all of which are taken too."""
    detector: Literal["haar", "yunet"] = "haar"
    """Finds their faces."""
    num_tiny: int = 20_000
    """Drawn photos of 64 pixels."""
    packed: bool = False
    """Ingest the drawn ones also from tars and from Parquet, in the same rounds."""
    rounds: int = 5
    """Of job and loop, in turn."""
    num_parts: int = 2_000
    """Parts of no work."""


def run(cfg: BenchConfig) -> None:
    """All of it, printed as it comes."""
    with tempfile.TemporaryDirectory(prefix="bp-", dir="/tmp") as name:
        place = Path(name)
        os.environ["RAY_TMPDIR"] = str(place / "r")
        (place / "r" / "ray").mkdir(parents=True)
        _draw(place / "tiny", cfg.num_tiny)
        sources = {"files": place / "tiny"} | (_packed(place) if cfg.packed else {})
        cores = os.cpu_count() or 1
        ray.init(num_cpus=cores, include_dashboard=False, logging_level=logging.WARNING, log_to_driver=False)
        try:
            _driver(cfg, cores)
            _compare(f"{cfg.num_tiny} tiny photos", sources, _TINY, cfg, place, cores)
            _resume("tiny photos", place / "tiny", _TINY, place)
            if cfg.source is not None:
                config = PrepareConfig(detector=cfg.detector)
                _compare(
                    f"all photos of the source, {cfg.detector}", {"files": Path(cfg.source)}, config, cfg, place, cores
                )
                _resume("photos of the source", Path(cfg.source), PrepareConfig(crop="none"), place)
        finally:
            ray.shutdown()


def _draw(folder: Path, num: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(num):
        path = folder / f"{number // 100:04d}" / f"{number % 100:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = cv2.resize(rng.integers(0, 256, (8, 8, 3), np.uint8), (64, 64), interpolation=cv2.INTER_CUBIC)
        path.write_bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())


def _packed(place: Path) -> dict[str, Path]:
    """The drawn photos in tars of 2,000, and in Parquet with 100 a row group."""
    photos = [path.read_bytes() for path in sorted((place / "tiny").rglob("*.jpg"))]
    (place / "tars").mkdir()
    (place / "tables").mkdir()
    for start in range(0, len(photos), 2000):
        some = photos[start : start + 2000]
        with tarfile.open(place / "tars" / f"{start:06d}.tar", "w") as tar:
            for number, photo in enumerate(some):
                info = tarfile.TarInfo(f"{number:06d}.jpg")
                info.size = len(photo)
                tar.addfile(info, io.BytesIO(photo))
        pq.write_table(pa.table({"image": some}), place / "tables" / f"{start:06d}.parquet", row_group_size=100)
    return {"tars": place / "tars", "Parquet": place / "tables"}


# ---- 1. against a plain loop ----

_config: PrepareConfig
_detector: FaceDetector | None


def _start(config: PrepareConfig) -> None:
    global _config, _detector
    limit_threads(1)
    network = find("yunet") if config.detector == "yunet" else None
    _config, _detector = config, make_detector(config, network.read_bytes() if network else None)


def _one(job: tuple[str, str]) -> bool:
    try:
        done = prepare(Path(job[0]).read_bytes(), _config, _detector)
    except BadImage:
        return False
    Path(job[1]).write_bytes(done.jpeg)
    return True


def _compare(
    what: str, sources: dict[str, Path], config: PrepareConfig, cfg: BenchConfig, place: Path, cores: int
) -> None:
    listed = list_source(str(sources["files"]))
    paths = [listed.root.file(photo.uri) for photo in listed.photos]
    for number in range(32 * cores):
        few = place / "few" / f"{number // 2:06}" / f"{number % 2}.jpg"
        few.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(paths[number % len(paths)], few)
    main(IngestConfig(source=str(place / "few"), out=str(place / "warm-up"), layout="lfw", prepare=config))
    for name in ("few", "warm-up"):
        shutil.rmtree(place / name)
    (place / "loop").mkdir()
    jobs = [(path, str(place / "loop" / f"{number}.jpg")) for number, path in enumerate(paths)]
    stored: set[int] = set()

    def ingest(source: Path) -> None:
        done = main(IngestConfig(source=str(source), out=str(place / "out"), prepare=config))
        stored.add(read_manifest(done).counts["stored"])
        shutil.rmtree(place / "out")

    with multiprocessing.get_context("spawn").Pool(cores, _start, (config,)) as pool:
        pool.map(_one, jobs[:64], chunksize=4)
        works: dict[str, Callable[[], Any]] = {"loop": lambda: stored.add(sum(pool.map(_one, jobs, chunksize=16)))}
        works |= {name: (lambda source=source: ingest(source)) for name, source in sources.items()}
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
        for turn in range(cfg.rounds):
            names = list(works)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                with Meter() as meter:
                    begun = time.perf_counter()
                    works[name]()
                    seconds = time.perf_counter() - begun
                spent[name].append((seconds, meter.seconds))
    if len(stored) != 1:
        raise AssertionError(f"the loop and the jobs stored different numbers of photos: {stored}")
    clock, processor = ({name: statistics.median(of) for name, of in _columns(spent, at)} for at in (0, 1))
    print(f"\n{what}, {cores} CPUs, {cfg.rounds} rounds: {len(paths) / clock['loop']:.0f} photos/s by the loop")
    for name in sources:
        rounds = ", ".join(f"{of[0] / job[0]:.2f}" for of, job in zip(spent["loop"], spent[name], strict=True))
        print(
            f"  job / loop, {name} (aim >= 0.95): {clock['loop'] / clock[name]:.2f} by the clock (rounds: {rounds}), "
            f"{processor['loop'] / processor[name]:.2f} by processor time",
            flush=True,
        )
    shutil.rmtree(place / "loop")


def _columns(spent: dict[str, list[tuple[float, float]]], at: int) -> Iterator[tuple[str, list[float]]]:
    return ((name, [pair[at] for pair in of]) for name, of in spent.items())


# ---- 2. a second run ----


def _resume(what: str, source: Path, config: PrepareConfig, place: Path) -> None:
    out, read = Folder.of(place / "again"), list[int]()
    for turn in range(3):
        before = _read_so_far()
        plan = catalog.plan_collection(out.uri, source=str(source), layout="auto", config={}, part_size=None)
        if not plan["sealed"]:
            root = Folder(plan["root"])
            parts = [dataclasses.asdict(ingest_part(out, part, root, config)) for part in range(plan["parts"])]
            divided = catalog.write_catalog(out.uri, plan["parts"], SplitConfig(), catalog.parts_digest(parts))
            if turn == 1:
                read.append(_read_so_far() - before)
                catalog.seal_collection(out, {}, plan, parts, divided)
        else:
            read.append(_read_so_far() - before)
    size = sum(out.list().values())
    shares = ", ".join(f"{num:,} ({100 * num / size:.2f} %)" for num in read)
    print(
        f"  bytes that a second run reads of {what}, {size:,} in the collection, unsealed; sealed: {shares}", flush=True
    )
    shutil.rmtree(out.path)


def _read_so_far() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


# ---- 3. the driver ----


def _nothing(part: int) -> dict[str, Any]:
    files = {f"{kind}/part-{part:05d}.parquet": "0" * 64 for kind in ("plan", "images", "rejected")}
    return {"part": part, "taken": 256, "stored": 256, "rejected": {}, "files": files}


def _driver(cfg: BenchConfig, cores: int) -> None:
    with session():
        list(run_parts("warm up", range(10 * cores), _nothing, total_items=256 * 10 * cores))
        begun, used = time.perf_counter(), time.process_time()
        list(run_parts("nothing", range(cfg.num_parts), _nothing, total_items=256 * cfg.num_parts))
        seconds, used = time.perf_counter() - begun, time.process_time() - used
    rate, most = cfg.num_parts / seconds, cfg.num_parts / used
    print(
        f"\ndriver, {cfg.num_parts} parts of no work on {cores} CPUs: {rate:.0f} parts/s, {256 * rate:,.0f} photos/s "
        f"in parts of 256: {256 * rate * _KERNEL_MS / 1000:,.0f} cores at {_KERNEL_MS:g} ms a photo; "
        f"{1000 / most:.1f} ms of the driver's own processor time a part, so at most {256 * most:,.0f} photos/s",
        flush=True,
    )


if __name__ == "__main__":
    run(tyro.cli(BenchConfig, description=__doc__))
