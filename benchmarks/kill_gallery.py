"""Kill the writers of a gallery's store at random moments, over and over, and look what is left.

    python benchmarks/kill_gallery.py                     # 100 rounds
    python benchmarks/kill_gallery.py --rounds 5 --seed 7
    python benchmarks/kill_gallery.py --hosts             # in an object store, each client a host of its own

Four client processes add, replace and delete images of their own names, each change acknowledged on a pipe when the
store has returned. After a random time all are killed with SIGKILL, the store is opened again by a fresh process and
compared with what was acknowledged: every image that was, nothing that was deleted, and of the one change of each
client that was in flight either outcome. The store goes on into the next round.

With `--hosts` the gallery lies in an S3 server on loopback, each client has tables of its own, and one more process
compacts the log all the time and is killed like the others. The fresh process is a host that never saw the gallery; the
tables that the killed ones left must come to the same.
"""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval.live.store import Store
from tests.support.object_store import object_store
from tests.support.writers import MODEL, drawn

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """How often, and how long each time."""

    rounds: int = 100
    """Times that all clients are killed."""
    clients: int = 4
    """Processes that write at once."""
    min_s: float = 0.05
    """Shortest time from the first acknowledged change to the kill, in seconds."""
    max_s: float = 0.6
    """Longest."""
    hosts: bool = False
    """Each client is a host of its own, and the gallery lies in an object store."""
    seed: int = 0
    """Of the moments and of what is written."""


@dataclass(slots=True)
class Known:
    """What must be there: name -> seed of what was drawn; None: deleted, or never there. `open`: name -> what a change
    in flight would make of it."""

    there: dict[str, int | None] = field(default_factory=dict)
    open: dict[str, int | None] = field(default_factory=dict)
    acknowledged: int = 0
    in_flight: int = 0

    def read(self, line: str) -> None:
        """A line of a client."""
        said, kind, name, seed = line.split()
        if said == "try":
            self.open[name] = int(seed) if kind == "add" else None
        else:
            self.there[name] = self.open.pop(name)
            self.acknowledged += 1


def main(cfg: Config) -> Known:
    """Run, print a line a tenth of the rounds, and the sum.

    Raises: AssertionError with the seed and the round, for the first image that is there and must not be, or must and
        is not.
    """
    rng, known = random.Random(cfg.seed), Known()
    with place(cfg.hosts) as (gallery, disks):
        for number in range(cfg.rounds):
            one_round(gallery, disks, cfg, rng, known)
            try:
                check(gallery, known, disks / f"new-{number}")
                for disk in sorted(disks.glob("client-*/live")):
                    check(gallery, known, disk)
            except AssertionError as error:
                raise AssertionError(f"seed {cfg.seed}, round {number}: {error}") from None
            if (number + 1) % max(1, cfg.rounds // 10) == 0:
                print(f"{number + 1:4} rounds: {known.acknowledged} changes acknowledged, all kept", flush=True)
    print(
        f"{cfg.rounds} rounds of kill -9 with {cfg.clients} {'hosts' if cfg.hosts else 'clients'}: "
        f"{known.acknowledged} changes acknowledged, {known.in_flight} in flight; "
        "every acknowledged one kept, none half done."
    )
    return known


@contextmanager
def place(hosts: bool) -> Iterator[tuple[str, Path]]:
    """Where the gallery lies, and a folder for what its hosts keep."""
    with ExitStack() as stack:
        disks = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not hosts:
            yield str(disks / "gallery"), disks
            return
        store = stack.enter_context(object_store())
        os.environ.update(store.environment)
        yield f"{store.bucket()}/gallery", disks


def one_round(gallery: str, disks: Path, cfg: Config, rng: random.Random, known: Known) -> None:
    """Start, wait, kill, and read what the clients had said."""
    with started(gallery, disks, cfg, rng) as clients:
        for client in clients[: cfg.clients]:
            assert client.stdout is not None
            known.read(client.stdout.readline().decode().strip())  # each is at work
        time.sleep(rng.uniform(cfg.min_s, cfg.max_s))
        for client in rng.sample(clients, len(clients)):
            os.kill(client.pid, signal.SIGKILL)
        for client in clients[: cfg.clients]:
            assert client.stdout is not None
            told = client.stdout.read().decode()
            for line in told[: told.rfind("\n") + 1].splitlines():
                known.read(line)


@contextmanager
def started(gallery: str, disks: Path, cfg: Config, rng: random.Random) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The clients, and behind them the one that compacts, if there is one."""
    whats = [[str(who), str(rng.randrange(1 << 30))] for who in range(cfg.clients)]
    whats += [["compact"]] if cfg.hosts else []
    clients = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.writers", gallery, *what],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            env=os.environ | {"RETRIEVAL_CACHE": str(disks / f"client-{what[0]}")},
        )
        for what in whats
    ]
    try:
        yield clients
    finally:
        for client in clients:
            client.kill()
            client.wait()
            if client.stdout is not None:
                client.stdout.close()


def check(gallery: str, known: Known, disk: Path) -> None:
    """The store, opened anew, against what is known; what was in flight becomes known by it. Args: disk: of the host
    that opens it, where that matters.

    Raises: AssertionError.
    """
    store = Store.open(gallery, disk)
    try:
        changed = store.changed(0, MODEL)
        rows = {row.entry.image_id: row for row in changed.rows}
        deleted = {name for name, _ in changed.deleted}
        known.in_flight += len(known.open)
        for name in {*known.there, *known.open, *rows}:
            found = rows.get(name)
            allowed = [known.there.get(name), *([known.open[name]] if name in known.open else [])]
            seeds = [seed for seed in allowed if seed is not None and found is not None and is_drawn(found, name, seed)]
            if found is None:
                assert None in allowed, f"{name} was acknowledged and is gone"
                known.there[name] = None
            else:
                assert seeds, f"{name} is there, and is none of {allowed}"
                assert store.jpeg(name) == drawn(name, seeds[0]).jpeg, f"the crop of {name} is another"
                assert name not in deleted, f"{name} is there and deleted"
                known.there[name] = seeds[0]
        known.open.clear()
    finally:
        store.close()


def is_drawn(row: object, name: str, seed: int) -> bool:
    wanted = drawn(name, seed)
    entry, vector = row.entry, row.vector  # type: ignore[attr-defined]
    return entry.content_hash == wanted.content_hash and vector is not None and (vector == wanted.vector).all()


if __name__ == "__main__":
    settings = tyro.cli(Config, description=__doc__)
    print(f"seed {settings.seed}: {dataclasses.asdict(settings)}")
    main(settings)
