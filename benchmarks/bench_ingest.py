"""Ingest, measured against what one would write without it, on the same photographs in the same run.

    python benchmarks/bench_ingest.py                      # draws its own photographs
    python benchmarks/bench_ingest.py --source PHOTOS      # any local source that ingest reads

1. The Ray job against a plain loop of the same kernel over as many spawned processes as Ray has CPUs. Both start with
   their processes up and the cascade loaded. The job's time is all of `main`: listing, planning, Parquet, hashes,
   catalogue and seal; the loop only reads, prepares and writes each JPEG.
2. The Ray job with YuNet against the same job with Haar, in turn, and in how many photographs each finds a face; with
   the crops that `pipeline faces` makes too. Left out where YuNet's file is not here.
3. The kernel against OpenCV's defaults (frontalface_default at full resolution) on photos of 1024 pixels with one face
   each at a known place, in one process. A face counts as found where the best box holds the true centre.
4. Memory of the driver for N and for 10 N photographs, each in a process of its own.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import ray
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ray_jobs.ingest import IngestConfig, main
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.data.demo.faces import draw_collection
from retrieval.data.demo.portrait import background
from retrieval.data.listing import list_source
from retrieval.images.detectors.face import Face, FaceDetector
from retrieval.images.detectors.haar import HaarDetector
from retrieval.images.faces import best_first
from retrieval.images.pixels import BadImage, encode_jpeg, limit_threads
from retrieval.images.preparation import prepare
from retrieval.images.settings import Box, PrepareConfig
from retrieval.models.known_weights import find

ROOT = Path(__file__).resolve().parents[1]
CONFIG = PrepareConfig(detector="haar")
DETECTORS = {
    "Haar": CONFIG,
    "YuNet": PrepareConfig(detector="yunet"),
    "YuNet, upright at 112 pixels": PrepareConfig(detector="yunet", crop="aligned", size=112, margin=0.0),
}
Photo = tuple[bytes, tuple[float, float]]  # JPEG, and the centre of its face


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchConfig:
    """Measure ingest."""

    source: str | None = None
    """Local photographs to measure with; None draws some."""
    num_photos: int = 1500
    """Photographs of the first measurement; fewer are used again under other names, to come to this number."""
    num_large: int = 60
    """Photographs of the third measurement."""
    num_memory: int = 400
    """N of the fourth measurement."""
    rounds: int = 3
    """Times the first two measurements are repeated, what is compared in turn; the median is given."""


def run(cfg: BenchConfig) -> None:
    """All measurements, as a table."""
    with tempfile.TemporaryDirectory(prefix="bi-", dir="/tmp") as name:
        place = Path(name)
        os.environ["RAY_TMPDIR"] = str(place / "r")
        (place / "r" / "ray").mkdir(parents=True)
        originals = _originals(cfg, place)
        cores = os.cpu_count() or 1
        ray.init(num_cpus=cores, include_dashboard=False, logging_level=logging.WARNING, log_to_driver=False)
        try:
            rows = [*_against_loop(cfg, originals, place, cores), *_detectors(cfg, place)]
            rows += [*_against_defaults(cfg, originals), *_memory(cfg, originals, place)]
        finally:
            ray.shutdown()
    width = max(len(label) for label, _ in rows)
    print(f"\nbench_ingest, {cores} CPUs, {len(originals)} different photographs")
    for label, value in rows:
        print(f"  {label:<{width}}  {value}")


def _originals(cfg: BenchConfig, place: Path) -> list[Path]:
    if cfg.source is None:
        draw_collection(place / "drawn", num_identities=40, images_per_identity=10)
        return sorted((place / "drawn" / "img_align_celeba").iterdir())
    listed = list_source(cfg.source)
    photos = [Path(listed.root.file(photo.uri)) for photo in listed.photos]
    step = max(1, len(photos) // cfg.num_photos)
    return photos[::step][: cfg.num_photos]


def _copies(originals: list[Path], folder: Path, count: int) -> list[Path]:
    """`count` files in sub-folders of two, so that they read as people."""
    paths = []
    for number in range(count):
        path = folder / f"{number // 2:06}" / f"{number % 2}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(originals[number % len(originals)], path)
        paths.append(path)
    return paths


# ---- 1. against a plain loop ----

_detector: FaceDetector


def _start() -> None:
    global _detector
    limit_threads(1)
    _detector = HaarDetector(CONFIG)


def _one(job: tuple[str, str]) -> bool:
    try:
        done = prepare(Path(job[0]).read_bytes(), CONFIG, _detector)
    except BadImage:
        return False
    Path(job[1]).write_bytes(done.jpeg)
    return True


def _against_loop(cfg: BenchConfig, originals: list[Path], place: Path, cores: int) -> list[tuple[str, str]]:
    paths = _copies(originals, place / "photos", cfg.num_photos)
    _copies(originals, place / "few", 32 * cores)
    main(IngestConfig(source=str(place / "few"), out=str(place / "warm-up"), prepare=CONFIG))
    (place / "loop").mkdir()
    jobs = [(str(path), str(place / "loop" / f"{number}.jpg")) for number, path in enumerate(paths)]
    job_times, loop_times, stored, kept = [], [], 0, 0
    with multiprocessing.get_context("spawn").Pool(cores, _start) as pool:
        pool.map(_one, jobs[:64], chunksize=4)
        for turn in range(cfg.rounds):
            begun = time.perf_counter()
            out = main(
                IngestConfig(source=str(place / "photos"), out=str(place / f"job-{turn}"), layout="lfw", prepare=CONFIG)
            )
            job_times.append(time.perf_counter() - begun)
            stored = read_manifest(out).counts["stored"]
            begun = time.perf_counter()
            kept = sum(pool.map(_one, jobs, chunksize=16))
            loop_times.append(time.perf_counter() - begun)
    if stored != kept:
        raise AssertionError(f"the job stored {stored} photographs and the loop {kept}")
    job, loop = float(np.median(job_times)), float(np.median(loop_times))
    ratios = sorted(b / a for a, b in zip(job_times, loop_times, strict=True))
    return [
        ("ingest job, whole", f"{len(paths) / job:.0f} photos/s"),
        (f"plain loop, {cores} processes", f"{len(paths) / loop:.0f} photos/s"),
        ("job / loop (aim >= 0.9)", f"{loop / job:.2f}   (each round: {', '.join(f'{r:.2f}' for r in ratios)})"),
        ("faces found", f"{100 * stored / len(paths):.2f} %"),
    ]


# ---- 2. the job, detector by detector ----


def _detectors(cfg: BenchConfig, place: Path) -> list[tuple[str, str]]:
    """The photographs of the first measurement again; the workers of both detectors are up."""
    if find("yunet") is None:
        return [("ingest job with YuNet", "its file is not here: python -m ray_jobs.weights")]
    rates: dict[str, list[float]] = {name: [] for name in DETECTORS}
    found = dict.fromkeys(DETECTORS, 0.0)
    for turn in range(-1, cfg.rounds):
        photos = place / ("few" if turn < 0 else "photos")
        names = list(DETECTORS)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:  # each round begins with another
            out = place / f"detector-{turn}-{list(DETECTORS).index(name)}"
            begun = time.perf_counter()
            main(IngestConfig(source=str(photos), out=str(out), layout="lfw", prepare=DETECTORS[name]))
            seconds, counts = time.perf_counter() - begun, read_manifest(Folder.of(str(out))).counts
            if turn >= 0:
                rates[name].append(counts["source"] / seconds)
                found[name] = 100 * counts["stored"] / counts["source"]
    base = np.array(rates[next(iter(DETECTORS))])
    return [
        (
            f"ingest job, {name}",
            f"{np.median(rates[name]):.0f} photos/s, face found in {found[name]:.2f} %, "
            f"{np.median(np.array(rates[name]) / base):.2f} of Haar's rate",
        )
        for name in DETECTORS
    ]


# ---- 3. against OpenCV's defaults ----


def _against_defaults(cfg: BenchConfig, originals: list[Path]) -> list[tuple[str, str]]:
    limit_threads(1)
    photos = [_large_photo(originals[n % len(originals)], n) for n in range(cfg.num_large)]
    detector = HaarDetector(CONFIG)
    folder = Path(cv2.__file__).parent / "data"
    cascade = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))
    ours, ours_right = _timed(photos, lambda data: _box_of_ours(data, detector))
    theirs, theirs_right = _timed(photos, lambda data: _box_of_defaults(data, cascade))
    return [
        ("kernel, photos of 1024 pixels, one process", f"{ours:.1f} photos/s, face found in {ours_right:.1f} %"),
        ("OpenCV defaults, full resolution", f"{theirs:.1f} photos/s, face found in {theirs_right:.1f} %"),
        ("kernel / defaults (aim >= 2)", f"{ours / theirs:.1f}"),
    ]


def _large_photo(original: Path, number: int) -> Photo:
    """A photo of 1024 x 768 with the original, at 250 to 700 pixels, somewhere in it; and the original's centre."""
    rng = np.random.default_rng(number)
    scene = (255 * np.clip(background(rng, (1024, 768)), 0, 1)).astype(np.uint8).transpose(1, 2, 0).copy()
    face = cv2.cvtColor(np.asarray(cv2.imread(str(original))), cv2.COLOR_BGR2RGB)
    scale = rng.uniform(250, 700) / max(face.shape[:2])
    face = cv2.resize(face, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    height, width = face.shape[:2]
    x, y = int(rng.integers(0, 1024 - width + 1)), int(rng.integers(0, 768 - height + 1))
    scene[y : y + height, x : x + width] = face
    return encode_jpeg(scene, 92), (x + width / 2, y + height / 2)


def _timed(photos: list[Photo], box_of: Callable[[bytes], Box | None]) -> tuple[float, float]:
    """Photographs a second, and how many in 100 have their face where it was put."""
    right, begun = 0, time.perf_counter()
    for data, (x, y) in photos:
        box = box_of(data)
        right += box is not None and box[0] < x < box[2] and box[1] < y < box[3]
    return len(photos) / (time.perf_counter() - begun), 100 * right / len(photos)


def _box_of_ours(data: bytes, detector: FaceDetector) -> Box | None:
    try:
        return prepare(data, CONFIG, detector).box
    except BadImage:
        return None


def _box_of_defaults(data: bytes, cascade: cv2.CascadeClassifier) -> Box | None:
    image = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    found = cascade.detectMultiScale(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    if not len(found):
        return None
    height, width = image.shape[:2]
    box = best_first([Face((float(x), float(y), float(x + w), float(y + h))) for x, y, w, h in found], width, height)[
        0
    ].box
    x1, y1, x2, y2 = (int(edge) for edge in box)
    cv2.imencode(".jpg", cv2.resize(image[y1:y2, x1:x2], (218, 218)), [cv2.IMWRITE_JPEG_QUALITY, 95])
    return box


# ---- 4. the driver's memory ----


def _memory(cfg: BenchConfig, originals: list[Path], place: Path) -> list[tuple[str, str]]:
    peaks = {}
    for count in (cfg.num_memory, 10 * cfg.num_memory):
        folder = place / f"memory-{count}"
        _copies(originals, folder, count)
        job = {"source": str(folder), "out": str(place / f"memory-out-{count}")}
        environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
        command = [sys.executable, __file__, "--driver", json.dumps(job)]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, cwd=ROOT)
        peaks[count] = int(done.stdout.split()[-1]) / 1024
        size = sum(Folder.of(job["out"]).list().values()) / 2**20
    (small, low), (large, high) = peaks.items()
    return [
        (f"driver's peak memory, {small} photographs", f"{low:.0f} MiB"),
        (f"driver's peak memory, {large} photographs", f"{high:.0f} MiB ({size:.0f} MiB of collection)"),
        ("growth for 10 times the photographs (aim: none)", f"{high - low:+.1f} MiB"),
    ]


def _driver(job: str) -> None:
    main(IngestConfig(**json.loads(job), prepare=dataclasses.replace(CONFIG, crop="none")))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--driver"]:
        _driver(sys.argv[2])
    else:
        run(tyro.cli(BenchConfig))
