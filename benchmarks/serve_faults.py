"""Faults while clients ask: what failed, why, and how long it took until all was well again. Over HTTP, on Ray Serve.

    python benchmarks/serve_faults.py
    python benchmarks/serve_faults.py --faults replica proxy --clients 8

Each fault is done to a running service of two replicas under load: kill -9 of a replica, of a process that decodes
photos, of the proxy, of Serve's controller, of a part of the index; the workspace away for a while, on a disk and in an
object store, where photos are added meanwhile; a bad version published. Every answer is compared with what was answered
before: one that differs is wrong, and there must be none. Recovery is from the fault to the last request that failed.
What meets no reason of ours ("without a reason", a connection that breaks) is told apart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.swap_under_load import Config as LoadConfig
from benchmarks.swap_under_load import Expected, Load, Running, known_answers, reason_of, running
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.published import go_to, publish
from tests.support.faulty_proxy import FaultyProxy
from tests.support.object_store import object_store

FAULTS = (
    "replica",
    "photo-process",
    "proxy",
    "proxy-actor",
    "controller",
    "workspace",
    "bucket",
    "bad-version",
    "disk",
    "part",
)
_PROCESSES = {
    "replica": "ray::ServeReplica:default:Search",
    "photo-process": "serve.photos.worker",
    "proxy": "haproxy -",
    "proxy-actor": "ray::ProxyActor",
    "controller": "ray::ServeController",
    "part": "ray::ServeReplica:default:Part",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which faults, under how much load."""

    faults: tuple[str, ...] = FAULTS
    """Of: replica, photo-process, proxy (HAProxy), proxy-actor (of Ray Serve), controller (each of them ended by
    kill -9), workspace (away for a while), bucket (the workspace lies in an object store, which does not answer for a
    while), bad-version (published), disk (of the changes is full; needs the right to
    mount one of 2 MB), part (of an index that is spread over two: kill -9)."""
    clients: int = 4
    """Clients that ask all the time."""
    replicas: int = 2
    """Replicas of the service."""
    calm: float = 5.0
    """Seconds of load before a fault."""
    away: float = 30.0
    """Seconds that the workspace is away."""
    settle: float = 30.0
    """Seconds of load after a fault."""


def ours(name: str) -> list[int]:
    """Processes below this one whose command, or the name that Ray gave them, holds `name`; the oldest first."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it has ended

    def below(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return sorted(pid for pid, command in commands.items() if name in command and below(pid))


def kill(kind: str) -> str:
    """kill -9 of one process of the kind. Returns what was done."""
    pids = ours(_PROCESSES[kind])
    if not pids:
        raise ValueError(f"There is no process '{_PROCESSES[kind]}'.")
    os.kill(pids[0], signal.SIGKILL)
    return f"kill -9 of one of {len(pids)} '{_PROCESSES[kind]}'"


def workspace_away(at: Running, seconds: float) -> str:
    here = Path(at.workspace.path)
    here.rename(aside := here.with_name(f"{here.name}-away"))
    time.sleep(seconds)
    aside.rename(here)
    return f"the workspace was away for {seconds:g} s"


def bad_version(at: Running) -> str:
    """Publish an index with another byte in it, and go back after a while."""
    from retrieval.artifacts.manifest import MANIFEST

    folder, bad = at.workspace / "index/1", at.workspace / "index/bad"
    for name in folder.list():
        data = bytearray(folder.read_bytes(name))
        if name.startswith("shard-"):
            data[len(data) // 2] ^= 0xFF
        if name != MANIFEST:
            bad.write_bytes(name, bytes(data))
    bad.write_bytes(MANIFEST, folder.read_bytes(MANIFEST))
    publish(at.workspace, collection=at.workspace / "collection/test", model=at.workspace / "model/1", index=bad)
    time.sleep(5)
    return "an index with another byte in it was published"


class Adder:
    """A client that adds photos all the time, and what was answered to each."""

    def __init__(self, at: Running) -> None:
        self.answers: list[tuple[float, str, str]] = []
        """Moment, image_id, and 'added' or why not."""
        self._at, self._stop = at, threading.Event()
        self._thread = threading.Thread(target=self._add)

    def __enter__(self) -> Adder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _add(self) -> None:
        with httpx.Client(base_url=self._at.address, timeout=60) as client:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                name, photo = f"added-{number}.jpg", self._at.photos[number % len(self._at.photos)]
                body = photo + bytes(str(number), "ascii")  # what follows a JPEG's end is ignored
                kind = {"Content-Type": "image/jpeg"}
                response = client.post("/v1/images", params={"image_id": name}, content=body, headers=kind)
                said = "added" if response.status_code == 200 else reason_of(response)
                self.answers.append((time.monotonic(), name, said))
                time.sleep(0.02)


def full_disk(at: Running, cfg: Config) -> int:
    """Fill the disk that the changes lie on, then free it. Returns how many answers were not true afterwards."""
    filler = Path(at.workspace.path) / "live/filler"

    def full() -> None:
        fill(filler)
        time.sleep(cfg.settle)

    return while_adding(at, cfg, full, filler.unlink)


def while_adding(at: Running, cfg: Config, harm: Callable[[], None], mend: Callable[[], None]) -> int:
    """Harm it while photos are added and searched for, then mend it. Returns how many answers were not true."""
    with httpx.Client(base_url=at.address, timeout=60) as client:
        known = known_answers(client, at)
        with Adder(at) as adder, Load(at, known, 1, only_first=True) as load:
            time.sleep(cfg.calm)
            began = time.monotonic()
            harm()
            mended = time.monotonic()
            mend()
            time.sleep(cfg.calm)
        for phase, since, until in (("before", 0.0, began), ("harmed", began, mended), ("after", mended, float("inf"))):
            counts = Counter(said for moment, _, said in adder.answers if since <= moment < until)
            print(f"  adding, {phase}: {dict(counts)}")
        print(f"  searching: {dict(load.counts)}")
        after = [moment for moment, _, said in adder.answers if moment > mended and said == "added"]
        print(f"  the first photo was added {min(after) - mended:.2f} s after it ended" if after else "  none after")
        wrong = 0
        for _, name, said in adder.answers:
            there = client.get(f"/v1/images/{name}").status_code == 200
            wrong += there != (said == "added")
        print(f"  {len(adder.answers)} answers looked at again: {wrong} not true", flush=True)
    return wrong + load.mixed


def bucket_away(cfg: Config) -> int:
    """An object store holds the gallery, and does not answer for a while. Returns answers that were not true."""
    with object_store() as store, FaultyProxy(("127.0.0.1", store.port)) as proxy:
        os.environ.update(store.environment | {"AWS_ENDPOINT_URL": f"http://{proxy.address}"})
        settings = LoadConfig(clients=cfg.clients, replicas=cfg.replicas, bucket=f"{store.bucket()}/gallery")
        with running(settings) as at:
            at = dataclasses.replace(at, names=at.names[-1:])

            def silence() -> None:
                proxy.silence(cfg.away)
                time.sleep(cfg.away)

            return while_adding(at, cfg, silence, lambda: None)


def fill(path: Path) -> None:
    """Until the disk takes no more."""
    with path.open("wb", buffering=0) as sink:
        for size in (65536, 4096, 1):
            try:
                while True:
                    sink.write(b"x" * size)
            except OSError:
                continue


@contextlib.contextmanager
def small_disk(workspace: Folder) -> Iterator[None]:
    """The changes of the workspace lie on a disk of 2 MB."""
    live = f"{workspace.path}/live"
    Path(live).mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "none", live], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", live], check=True)


def one_fault(fault: str, cfg: Config) -> tuple[int, int]:
    """Do it, and print what came of it. Returns answers that were wrong, and failures without a reason of ours."""
    if fault == "bucket":
        print(f"bucket: the object store did not answer for {cfg.away:g} s")
        return bucket_away(cfg), 0
    settings = LoadConfig(clients=cfg.clients, replicas=cfg.replicas, parts=2 if fault == "part" else 1)
    with running(settings, small_disk if fault == "disk" else contextlib.nullcontext) as at:
        at = dataclasses.replace(at, names=at.names[-1:])
        if fault == "disk":
            print("disk: that of the changes was filled")
            return full_disk(at, cfg), 0
        with httpx.Client(base_url=at.address, timeout=60) as client:
            known: dict[tuple[str, int], Expected] = known_answers(client, at)
        deeds: dict[str, Callable[[], str]] = {
            "workspace": lambda: workspace_away(at, cfg.away),
            "bad-version": lambda: bad_version(at),
        }
        with Load(at, known, cfg.clients) as load:
            time.sleep(cfg.calm)
            calm, began = sum(load.counts.values()), time.monotonic()
            done = deeds[fault]() if fault in deeds else kill(fault)
            over = time.monotonic()
            time.sleep(cfg.settle)
        if fault == "bad-version":
            go_to(at.workspace, at.names[0])
    total = sum(load.counts.values())
    print(f"{fault}: {done}")
    print(f"  {calm} answers before it, {total - calm} in the {over - began + cfg.settle:.0f} s from it on")
    for what, num in sorted(load.counts.items()):
        print(f"  {num:6}  {what}")
    late = [moment - began for moment in load.failed_at if moment > began]
    early = len(load.failed_at) - len(late)
    print(f"  failed {len(late)} (and {early} before it), wrong {load.mixed}", end="")
    print(f", the last failure {max(late):.1f} s after it began" if late else ", nobody noticed", flush=True)
    strange = sum(num for what, num in load.counts.items() if "without a reason" in what)
    return load.mixed, strange


def main(cfg: Config) -> int:
    """All of them, each on a fresh service in a process of its own. Returns for how many there were wrong answers."""
    if len(cfg.faults) == 1:
        return one_fault(cfg.faults[0], cfg)[0]
    bad = 0
    for fault in cfg.faults:
        given = [f"--{name}={getattr(cfg, name)}" for name in ("clients", "replicas", "calm", "away", "settle")]
        bad += bool(subprocess.run([sys.executable, __file__, "--faults", fault, *given]).returncode)
    print(f"faults with wrong answers: {bad}")
    return bad


if __name__ == "__main__":
    sys.exit(1 if main(tyro.cli(Config, description=__doc__)) else 0)
