"""A million photos through the steps after their pixels: the most that every process holds, step by step.

    python benchmarks/bench_million.py --rows 1000000

The photos are tiny JPEGs in parts of 256, as ingest leaves them, with image_ids of about 40 letters, six of a person.
The network is a stand-in that draws 128 numbers by who a photo shows, with the spread of real faces: cosines of 0.65
between two of one person, directions of falling weight. Everything else is what a user calls: the catalogue's task, the
job of embedding with that stand-in, `ray_jobs.build_index` and `ray_jobs.evaluate`. A service looks whether its network
gives the vectors of its index, so for `python -m serve` a network of a few layers embeds all photos (`ray_jobs.embed`).
What is said of a process is its anonymous memory; what it has mapped of files is the system's. `bench_tables.py`
measures the plan, and tables of any size.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bench_tables import columns
from benchmarks.drawn_parts import write_images
from benchmarks.processor_time import below
from benchmarks.scale_meter import held
from ray_jobs.runtime.parallel.parts import run_parts
from ray_jobs.runtime.session import on_cluster, session
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.artifacts.manifest import begin, read_manifest, seal
from retrieval.artifacts.progress import Progress, silent
from retrieval.artifacts.published import publish
from retrieval.data.catalog import write_catalog
from retrieval.data.settings import SplitConfig
from retrieval.images.pixels import encode_jpeg
from retrieval.images.settings import PrepareConfig

ROOT = Path(__file__).resolve().parents[1]
_PART, _SHOTS, _DIM, _SIDE = 256, 6, 128, 16
_COSINE = 0.65  # of two photos of one person
_ASKED = 200  # questions to the service
_EVERY = 0.2  # seconds between looks at the processes
_MARK = b"\xff\xfe\x00\x12"  # a JPEG's comment of sixteen bytes: person and photo


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchMillionConfig:
    """Measure every process of every step."""

    rows: int = 20_000
    """Photos."""
    queries: int = 2_000
    """That the evaluation asks with."""
    factory: str = "Flat"
    """Of the index."""
    parts: tuple[Literal["evaluate", "serve"], ...] = ("evaluate", "serve")
    """What is measured: drawn embeddings to a report, a small network's embeddings to answers, or both."""
    folder: str | None = None
    """Where all is made, and removed again; by default $TMPDIR."""
    step: str = ""
    """Of its own use: one step of a folder, in this process."""


# ---- the collection and its embeddings ----


class StandIn:
    """What embeds photos that say in a comment whom they show."""

    engine, format, dim = "stand-in", "float32", _DIM

    def embed_jpegs(self, jpegs: Sequence[bytes], progress: Progress = silent) -> np.ndarray:
        """(N, 128) float32, unit norm."""
        falling = 1 / np.sqrt(1 + np.arange(_DIM) / 16)
        out = np.empty((len(jpegs), _DIM), np.float32)
        for row, jpeg in enumerate(jpegs):
            person, photo = np.frombuffer(jpeg, np.int64, 2, 6)
            centre, own = (
                np.random.default_rng([kind, one]).normal(size=_DIM) for kind, one in enumerate((person, photo))
            )
            centre, own = (one * falling / np.linalg.norm(one * falling) for one in (centre, own))
            vector = centre + np.sqrt(1 / _COSINE - 1) * own
            out[row] = vector / np.linalg.norm(vector)
        progress("photos", len(jpegs), len(jpegs))
        return out


class EmbedPart:
    """As `ray_jobs.embed` has it, with the stand-in."""

    def __init__(self, collection: Folder, out: Folder) -> None:
        self.collection, self.out, self.embedder = collection, out, StandIn()

    def __call__(self, part: int, progress: Progress = silent, without: Mapping[int, Any] | None = None) -> Any:
        from retrieval.models.embedder import embed_part

        embedder: Any = self.embedder
        return embed_part(embedder, self.collection, self.out, part, progress, without or {})


def _picture(number: int) -> np.ndarray:
    """16 x 16 pixels: patches of a person's colours, and what is of this photo alone."""
    patches = np.random.default_rng([0, number // _SHOTS]).integers(40, 216, (4, 4, 3))
    own = np.random.default_rng([1, number]).integers(-40, 40, (8, 8, 3))
    return (patches.repeat(4, 0).repeat(4, 1) + own.repeat(2, 0).repeat(2, 1)).astype(np.uint8)


def make_images(folder: Folder, rows: int) -> int:
    """Parts of photos, as ingest leaves them; how many."""
    starts = range(0, rows, _PART)
    for part, first in enumerate(starts):
        stop = min(rows, first + _PART)
        known, numbers = columns(first, stop), range(first, stop)
        said = [_MARK + np.array([number // _SHOTS, number], np.int64).tobytes() for number in numbers]
        tiny = [encode_jpeg(_picture(number)) for number in numbers]
        jpegs = [jpeg[:2] + comment + jpeg[2:] for jpeg, comment in zip(tiny, said, strict=True)]
        side = [_SIDE] * len(jpegs)
        known |= {"photo": known["image_id"], "jpeg": jpegs, "width": side, "height": side}
        known["content_hash"] = [hashlib.sha256(jpeg).hexdigest() for jpeg in jpegs]
        write_images(folder, part, known)
    folder.write_json("source.json", {}, about={})
    return len(starts)


def catalogue(root: Folder, parts: int, rows: int) -> None:
    """Divide what was stored, and seal the collection."""
    collection, split = root / "collection", SplitConfig(test_fraction=0.98, val_fraction=0.01)
    with session(writes=collection):
        counts = on_cluster(write_catalog, collection.uri, parts, split, says="catalogue")["counts"]
    work = {"kind": "collection", "config": {"prepare": plain(PrepareConfig(crop="none", size=_SIDE))}, "inputs": {}}
    seal(collection, counts=counts | {"stored": rows}, **work)


def network(root: Folder, parts: int, rows: int) -> None:
    """Under whose name the stand-in's embeddings go: one of as many numbers, for the service."""
    from retrieval.models.bundle import save_bundle, start
    from retrieval.models.settings import ModelConfig

    config = ModelConfig(cut="features.1", head="linear", embedding_dim=_DIM, image_size=64)
    preparation = read_manifest(root / "collection", "collection").config["prepare"]
    save_bundle(start(config, weights="none", preparation=preparation), root / "model")


def embed(root: Folder, parts: int, rows: int) -> None:
    """The stand-in's embeddings."""
    from retrieval.models.embedder import begin_embeddings, seal_embeddings

    collection, model, out = root / "collection", root / "model", root / "embeddings"
    begin_embeddings(collection, model, out, "fp32")
    started = time.monotonic()
    with session(writes=out, reads=[collection]):
        done = run_parts(
            "embed", range(parts), EmbedPart, total_items=rows, fixed={"collection": collection, "out": out}
        )
        seal_embeddings(collection, model, out, "fp32", list(done), time.monotonic() - started)


# ---- what each process holds ----


class Watch:
    """The most anonymous memory of each kind of process below this one while the block lasts, MB; of the process
    `driver` by itself."""

    def __init__(self, driver: subprocess.Popen[str]) -> None:
        self.peaks: dict[str, float] = {}
        self.driver = 0.0
        self._started, self._over = driver.pid, threading.Event()

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_EVERY):
            for pid in below(os.getpid())[1:]:
                much = held(pid) / 2**20
                if pid == self._started:
                    self.driver = max(self.driver, much)
                else:
                    name = _kind(pid)
                    self.peaks[name] = max(self.peaks.get(name, 0.0), much)


def _kind(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "ended"
    if command[0].startswith("ray::"):
        return re.split(r"[.( ]", command[0])[0]
    words = [Path(word).stem for word in command if word and not word.startswith("-")]
    return words[1] if len(words) > 1 and words[0].startswith("python") else (words or ["?"])[0]


def said(step: str, rows: int, seconds: float, watch: Watch) -> None:
    others = sorted(watch.peaks.items(), key=lambda one: -one[1])[:5]
    told = ", ".join(f"{name} {peak:.0f}" for name, peak in others)
    print(f"{rows:>10,} {step:10} {seconds:8.1f} s  driver {watch.driver:5.0f} MB  others: {told}", flush=True)


def run(step: str, rows: int, *command: str) -> None:
    """A command, watched."""
    started = time.perf_counter()
    told: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, *command], cwd=ROOT, **told) as process, Watch(process) as watch:
        out, error = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{step} ended with {process.returncode}:\n{out[-2000:]}\n{error[-4000:]}")
    said(step, rows, time.perf_counter() - started, watch)


def serve(root: Folder, rows: int) -> None:
    """The service, up and asked."""
    from serve.ingress import free_port

    port, started, found = free_port(), time.perf_counter(), 0
    photo = encode_jpeg(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8).astype(np.uint8))
    command = [sys.executable, "-m", "serve", "--workspace", root.uri, "--port", str(port), "--min-replicas", "1"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with Watch(process) as watch:
        try:
            if not next((line for line in process.stdout if line.startswith("Serving ")), ""):
                raise RuntimeError("the service did not come up")
            up, url = time.perf_counter() - started, f"http://127.0.0.1:{port}/v1/search?k=50"
            for _ in range(_ASKED):
                answer = httpx.post(url, content=photo, headers={"content-type": "image/jpeg"}, timeout=60)
                found = len(answer.raise_for_status().json()["results"])
            took = (time.perf_counter() - started - up) / _ASKED
        finally:
            process.terminate()
            process.wait(60)
    said("serve", rows, up, watch)
    print(f"{'':11}answers {found} of {rows:,} in {1e3 * took:.1f} ms each, photo to answer")


def main(cfg: BenchMillionConfig) -> None:
    if cfg.step:
        root, parts = Folder.of(str(cfg.folder)), -(-cfg.rows // _PART)
        {"catalogue": catalogue, "network": network, "embed": embed}[cfg.step](root, parts, cfg.rows)
        return
    with tempfile.TemporaryDirectory(dir=cfg.folder, prefix="million-") as temp:
        root = Folder.of(temp)
        work = {
            "kind": "collection",
            "config": {"prepare": plain(PrepareConfig(crop="none", size=_SIDE))},
            "inputs": {},
        }
        begin(root / "collection", **work)
        make_images(root / "collection", cfg.rows)
        own = ("benchmarks/bench_million.py", "--rows", str(cfg.rows), "--folder", temp, "--step")
        for step in ("catalogue", "network"):
            run(step, cfg.rows, *own, step)
        if "evaluate" in cfg.parts:
            run("embed", cfg.rows, *own, "embed")
            evaluate(cfg, temp)
        if "serve" in cfg.parts:
            made = [f"--collection={temp}/collection", f"--out={temp}/embedded"]
            run("embed all", cfg.rows, "-m", "ray_jobs.embed", *made, f"--model={temp}/model")
            build(cfg, temp, "index", f"--embeddings={temp}/embedded")
            publish(root, **{kind: root / kind for kind in ("collection", "model", "index")})
            serve(root, cfg.rows)


def build(cfg: BenchMillionConfig, temp: str, name: str, *settings: str) -> None:
    made = (f"--collection={temp}/collection", f"--out={temp}/{name}", "--index.factory", cfg.factory)
    run("index", cfg.rows, "-m", "ray_jobs.build_index", *made, *settings)


def evaluate(cfg: BenchMillionConfig, temp: str) -> None:
    """The stand-in's embeddings, by an index of the gallery."""
    build(cfg, temp, "of-gallery", f"--embeddings={temp}/embeddings", "--splits", "gallery")
    system = f"drawn={temp}/model,{temp}/embeddings,{temp}/of-gallery"
    asked = ("--collection", f"{temp}/collection", "--systems", system, "--max-queries", str(cfg.queries))
    run("evaluate", cfg.rows, "-m", "ray_jobs.evaluate", *asked, "--out", f"{temp}/report")
    figures = json.loads((Path(temp) / "report/metrics.json").read_text())
    told, data = figures["systems"]["drawn"], figures["data"]
    print(
        f"{'':11}{data['num_queries']:,} queries of {data['num_gallery']:,}: recall@1 {told['recall@1']:.4f}, mAP "
        f"{told['mAP']:.4f}, index recall@10 {told['index_recall@10']:.4f}"
    )


if __name__ == "__main__":
    main(tyro.cli(BenchMillionConfig, description=__doc__))
