"""The query service over HTTP beside the same work in process, and beside a plain FastAPI + uvicorn app around it.

    python benchmarks/bench_serve.py                              # drawn faces, MobileNet-V2
    python benchmarks/bench_serve.py --subject places --weights F # drawn places, the same at 320 pixels
    python benchmarks/bench_serve.py --workspace W --photos DIR   # a finished workspace, real photos

All are up at once and asked in turn, so that a busy machine slows all of them; what counts are the ratios, and of
those the ones of processor time ("core ms") do not depend on who else is busy.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import functools
import http.client
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processor_time import used
from benchmarks.service_beside import Processes, Work, plain
from benchmarks.service_clients import arrivals, ask, batches, closed
from serve.__main__ import ServeConfig, running
from serve.ingress import Ingress, free_port
from serve.settings import ServeArgs


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What is asked, how long."""

    workspace: str = ""
    """A finished workspace; empty: one is drawn, with random weights."""
    subject: Literal["faces", "places"] = "faces"
    """What is drawn: portraits of 178 x 218 for MobileNet-V2 at 160 pixels, or scenes of 480 for it at 320, aspect
    kept, GeM."""
    weights: str = ""
    """File of that network's ImageNet weights; empty: random ones, to which all places are the same (and refused)."""
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


def measure(cfg: Config, workspace: str, photos: list[bytes], ingress: Ingress, work: Work) -> dict[str, float]:
    """The figures of one way in."""
    args = ServeArgs(
        workspace=workspace,
        min_replicas=cfg.replicas,
        max_replicas=cfg.replicas,
        replica_cpus=cfg.replica_cpus,
    )
    served = ServeConfig(settings=args, port=free_port(), ingress=ingress)
    with (
        running(served, num_cpus=cfg.replicas * cfg.replica_cpus + 1),
        plain(workspace, cfg.replicas) as (other, other_pid),
    ):
        ours = served.port
        processes = Processes(cfg.replicas, workspace, photos, cfg.seconds)
        for port, address in ((ours, "/v1/search"), (other, "/search")):
            closed(port, address, photos, 2 * cfg.replicas, 3.0)
        apart = [other_pid, *processes.pids]
        cores = {
            "HTTP": lambda: used(os.getpid(), but=apart),  # Ray's own processes, HAProxy, replicas, those for photos
            "plain app": lambda: used(other_pid, itself=True),  # one worker is uvicorn's own process
        }
        rounds = [one_round(cfg, photos, ours, other, work, processes, cores) for _ in range(cfg.rounds)]
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


def core_ms(work: Work, photos: list[bytes], seconds: float) -> float:
    """Processor time of the work here, a photo."""
    started, num, end = time.process_time(), 0, time.perf_counter() + seconds / 2
    while time.perf_counter() < end:
        work(photos[num % len(photos)])
        num += 1
    return 1e3 * (time.process_time() - started) / num


def one_round(
    cfg: Config,
    photos: list[bytes],
    ours: int,
    other: int,
    work: Work,
    processes: Processes,
    cores: dict[str, Callable[[], float]],
) -> dict[str, float]:
    """Everything once. Args: cores: seconds of a core that the service and the plain app have used."""
    found = in_turn(work, photos, ours, other, cfg.seconds)
    found["in process, core ms a query"] = core_ms(work, photos, cfg.seconds)
    found["HTTP, 1 client, q/s"] = closed(ours, "/v1/search", photos, 1, cfg.seconds).rate
    found["HTTP, 1 client, batches of 32, photos/s"] = batches(ours, photos, cfg.seconds)
    found["in process, all cores, q/s"] = processes.measure(cfg.replicas)[0]
    for clients in cfg.clients:
        for name, port, address in (("HTTP", ours, "/v1/search"), ("plain app", other, "/search")):
            before = cores[name]()
            told = closed(port, address, photos, clients, cfg.seconds)
            found[f"{name}, {clients} clients, core ms a query"] = 1e3 * (cores[name]() - before) / len(told.took)
            found[f"{name}, {clients} clients, q/s"] = told.rate
            found[f"{name}, {clients} clients, p99 ms"] = 1e3 * told.quantile(0.99)
    if cfg.overload:
        most = max(found[f"HTTP, {clients} clients, q/s"] for clients in cfg.clients)
        for times in (1, 4):
            told = arrivals(ours, "/v1/search", photos, times * most, cfg.seconds)
            found[f"HTTP, arrivals at {times} x, answered q/s"] = told.rate
            found[f"HTTP, arrivals at {times} x, p99 ms of the accepted"] = 1e3 * told.quantile(0.99)
            found[f"HTTP, arrivals at {times} x, refused"] = told.refused
            found[f"HTTP, arrivals at {times} x, failed"] = told.failed
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
        "core ms a query over in process": (
            found[f"HTTP, {few} clients, core ms a query"] / found["in process, core ms a query"],
            "<= 1.25",
        ),
        "core ms a query over the plain app's": (
            found[f"HTTP, {few} clients, core ms a query"] / found[f"plain app, {few} clients, core ms a query"],
            "<= 1",
        ),
        f"q/s at {many} clients over {few}": (found[f"HTTP, {many} clients, q/s"] / best, ">= 1"),
    }
    if cfg.overload:
        four, one = (found[f"HTTP, arrivals at {times} x, p99 ms of the accepted"] for times in (4, 1))
        told["p99 of the accepted at 4 x over 1 x"] = four / one, "<= 2"
    return told


def main(cfg: Config) -> None:
    from benchmarks.service_workspace import drawn  # slow to load, and not for the plain app

    with tempfile.TemporaryDirectory(prefix="bench-serve-") as folder:
        workspace, photos = (
            drawn(Path(folder), cfg.subject, cfg.weights or "none") if not cfg.workspace else (cfg.workspace, [])
        )
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
