"""The query service over HTTP beside the same work in process, and beside a plain FastAPI + uvicorn app around it.

    python benchmarks/bench_serve.py                              # drawn faces, MobileNet-V2
    python benchmarks/bench_serve.py --workspace W --photos DIR   # a finished workspace, real photos

All are up at once and asked in turn, so that a busy machine slows all of them; what counts are the ratios.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import functools
import http.client
import json
import multiprocessing
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from fastapi import FastAPI, Request

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.service_clients import arrivals, ask, batches, closed
from serve.__main__ import ServeConfig, running
from serve.ingress import Ingress, free_port
from serve.photos.messages import Looked
from serve.settings import ServeArgs

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What is asked, how long."""

    workspace: str = ""
    """A finished workspace; empty: drawn faces and MobileNet-V2 with random weights."""
    photos: str = ""
    """Folder of JPEGs to ask with; empty: those that were drawn."""
    seconds: float = 4.0
    """Of each measurement."""
    rounds: int = 3
    """Each is measured so many times, in turn; the median counts."""
    replicas: int = os.cpu_count() or 1
    """Replicas of the service, workers of the plain app, processes of the work in process."""
    replica_cpus: int = 1
    """CPUs of a replica."""
    clients: tuple[int, ...] = (8, 64)
    """Clients at once."""
    ingress: tuple[Ingress, ...] = ("haproxy",)
    """Ways in, one after another."""
    overload: bool = True
    """Also measure arrivals at 1 and 4 times what is answered at most."""


class Work:
    """The same functions without a service: decode, find, cut, embed, search, in the calling thread."""

    def __init__(self, workspace: str) -> None:
        from retrieval.artifacts.published import Pair
        from retrieval.images import pixels
        from serve.engine.version import Version
        from serve.photos.limits import Caps
        from serve.photos.looking import Looker

        pixels.limit_threads(1)
        self._version = Version.load(ServeArgs(workspace=workspace), Pair.open(workspace))
        self._looker = Looker(Caps())

    def can_use(self, photo: bytes) -> bool:
        """Whether the service would search with it."""
        return isinstance(self._looker(photo, self._version.look()), Looked)

    def __call__(self, photo: bytes) -> list[dict[str, Any]]:
        seen = self._looker(photo, self._version.look())
        embedding = self._version.embedder.embed_jpegs([seen.faces[0].jpeg])  # type: ignore[union-attr]
        (hits,) = self._version.gallery.search(embedding, 10)
        return [{"image_id": hit.image_id, "score": hit.score} for hit in hits]


def plain_app() -> Any:
    """What one would write in ten minutes: uvicorn --factory bench_serve:plain_app."""
    from starlette.concurrency import run_in_threadpool

    work, lock, app = Work(os.environ["BENCH_WORKSPACE"]), threading.Lock(), FastAPI()

    def answer(photo: bytes) -> list[dict[str, Any]]:
        with lock:  # a detector keeps state
            return work(photo)

    @app.post("/search")
    async def search(request: Request) -> dict[str, Any]:
        return {"results": await run_in_threadpool(answer, await request.body())}

    return app


def in_process(workspace: str, photos: list[bytes], seconds: float, results: Any, ready: Any, go: Any) -> None:
    """One process of the work, again and again: puts (count, latencies) in `results` after each `go`."""
    work = Work(workspace)
    for photo in photos[:4]:
        work(photo)
    ready.put(1)
    while go.get():
        took, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end:
            started = time.perf_counter()
            work(photos[len(took) % len(photos)])
            took.append(time.perf_counter() - started)
        results.put((len(took), took))


class Processes:
    """`num` processes of the work, started once."""

    def __init__(self, num: int, workspace: str, photos: list[bytes], seconds: float) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._results, self._ready, self._go = spawn.Queue(), spawn.Queue(), [spawn.Queue() for _ in range(num)]
        for go in self._go:
            arguments = (workspace, photos, seconds, self._results, self._ready, go)
            spawn.Process(target=in_process, args=arguments, daemon=True).start()
        for _ in self._go:
            self._ready.get()

    def measure(self, num: int) -> tuple[float, list[float]]:
        """(answers a second of all, seconds of each), of so many at once."""
        started = time.perf_counter()
        for go in self._go[:num]:
            go.put(True)
        found = [self._results.get() for _ in range(num)]
        total = time.perf_counter() - started
        return sum(count for count, _ in found) / total, [took for _, all_of in found for took in all_of]


@contextlib.contextmanager
def plain(workspace: str, workers: int) -> Iterator[int]:
    """The plain app, up; its port."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "bench_serve:plain_app", "--port", str(port)]
    command += ["--workers", str(workers), "--log-level", "error"]
    env = {**os.environ, "BENCH_WORKSPACE": workspace, "PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}"}
    process = subprocess.Popen(command, env=env, cwd=ROOT)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.2)
        time.sleep(5)
        yield port
    finally:
        process.terminate()
        process.wait()


def measure(cfg: Config, workspace: str, photos: list[bytes], ingress: Ingress, work: Work) -> dict[str, float]:
    """The figures of one way in."""
    args = ServeArgs(
        workspace=workspace,
        min_replicas=cfg.replicas,
        max_replicas=cfg.replicas,
        replica_cpus=cfg.replica_cpus,
    )
    served = ServeConfig(settings=args, port=free_port(), ingress=ingress)
    with running(served, num_cpus=cfg.replicas * cfg.replica_cpus + 1), plain(workspace, cfg.replicas) as other:
        ours = served.port
        processes = Processes(cfg.replicas, workspace, photos, cfg.seconds)
        for port, address in ((ours, "/v1/search"), (other, "/search")):
            closed(port, address, photos, 2 * cfg.replicas, 3.0)
        rounds = [one_round(cfg, photos, ours, other, work, processes) for _ in range(cfg.rounds)]
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def in_turn(work: Work, photos: list[bytes], ours: int, other: int, seconds: float) -> dict[str, float]:
    """p50 of the work here, of the service and of the plain app, one photo after another by each of them in turn."""
    asked: dict[str, Callable[[bytes], Any]] = {"in process, p50 ms": work}
    for name, port, address in (("HTTP", ours, "/v1/search"), ("plain app", other, "/search")):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        asked[f"{name}, 1 client, p50 ms"] = functools.partial(ask, connection, address)
    took: dict[str, list[float]] = {name: [] for name in asked}
    end = time.perf_counter() + 3 * seconds
    while time.perf_counter() < end:
        photo = photos[len(took["in process, p50 ms"]) % len(photos)]
        for name, one in asked.items():
            started = time.perf_counter()
            one(photo)
            took[name].append(time.perf_counter() - started)
    return {name: 1e3 * statistics.median(times) for name, times in took.items()}


def one_round(
    cfg: Config, photos: list[bytes], ours: int, other: int, work: Work, processes: Processes
) -> dict[str, float]:
    """Everything once."""
    found = in_turn(work, photos, ours, other, cfg.seconds)
    found["HTTP, 1 client, q/s"] = closed(ours, "/v1/search", photos, 1, cfg.seconds).rate
    found["HTTP, 1 client, batches of 32, photos/s"] = batches(ours, photos, cfg.seconds)
    found["in process, all cores, q/s"] = processes.measure(cfg.replicas)[0]
    for clients in cfg.clients:
        for name, port, address in (("HTTP", ours, "/v1/search"), ("plain app", other, "/search")):
            told = closed(port, address, photos, clients, cfg.seconds)
            found[f"{name}, {clients} clients, q/s"] = told.rate
            found[f"{name}, {clients} clients, p99 ms"] = 1e3 * told.quantile(0.99)
    if cfg.overload:
        most = max(found[f"HTTP, {clients} clients, q/s"] for clients in cfg.clients)
        for times in (1, 4):
            told = arrivals(ours, "/v1/search", photos, times * most, cfg.seconds)
            found[f"HTTP, arrivals at {times} x, answered q/s"] = told.rate
            found[f"HTTP, arrivals at {times} x, p99 ms of the accepted"] = 1e3 * told.quantile(0.99)
            found[f"HTTP, arrivals at {times} x, refused"] = told.refused
    print(json.dumps({name: round(value, 1) for name, value in found.items()}), file=sys.stderr, flush=True)
    return found


def ratios(cfg: Config, found: dict[str, float]) -> dict[str, tuple[float, str]]:
    """What the figures come to, with what is aimed at."""
    few, many = cfg.clients[0], cfg.clients[-1]
    best = found[f"HTTP, {few} clients, q/s"]
    told = {
        "HTTP p50 above in process, ms": (found["HTTP, 1 client, p50 ms"] - found["in process, p50 ms"], "<= 3"),
        "HTTP q/s over in process": (best / found["in process, all cores, q/s"], ">= 0.8"),
        "HTTP p50 over the plain app's": (
            found["HTTP, 1 client, p50 ms"] / found["plain app, 1 client, p50 ms"],
            "<= 1",
        ),
        "HTTP q/s over the plain app's": (best / found[f"plain app, {few} clients, q/s"], ">= 1"),
        "photos/s in batches of 32 over singles": (
            found["HTTP, 1 client, batches of 32, photos/s"] / found["HTTP, 1 client, q/s"],
            ">= 1.5",
        ),
        f"q/s at {many} clients over {few}": (found[f"HTTP, {many} clients, q/s"] / best, ">= 1"),
    }
    if cfg.overload:
        four, one = (found[f"HTTP, arrivals at {times} x, p99 ms of the accepted"] for times in (4, 1))
        told["p99 of the accepted at 4 x over 1 x"] = four / one, "<= 2"
    return told


def drawn(folder: Path) -> tuple[str, list[bytes]]:
    """A workspace of drawn faces and its photos."""
    from retrieval.images.settings import PrepareConfig
    from retrieval.models.settings import ModelConfig
    from tests.support.workspace import make_workspace

    made = make_workspace(
        folder, num_identities=40, prepare=PrepareConfig(detector="haar"), config=ModelConfig(image_size=160)
    )
    return str(made.folder), [path.read_bytes() for path in made.photos.values()]


def main(cfg: Config) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as folder:
        workspace, photos = drawn(Path(folder)) if not cfg.workspace else (cfg.workspace, [])
        if cfg.photos:
            photos = [path.read_bytes() for path in sorted(Path(cfg.photos).rglob("*.jpg"))[:200]]
        work = Work(workspace)
        usable = [photo for photo in photos if work.can_use(photo)]
        print(f"{len(usable)} photos to ask with; {len(photos) - len(usable)} others cannot be searched with, left out")
        if not usable:
            raise SystemExit("There is no photo to ask with. Name a folder of JPEGs: --photos.")
        for ingress in cfg.ingress:
            found = measure(cfg, workspace, usable, ingress, work)
            print(f"\n{ingress}")
            for name, value in found.items():
                print(f"{value:10.1f}  {name}")
            for name, (value, aim) in ratios(cfg, found).items():
                print(f"{value:10.2f}  {name} (aim {aim})")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
