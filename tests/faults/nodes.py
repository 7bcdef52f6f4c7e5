"""A Ray cluster of several nodes on this host: a head that takes no work, and others whose raylets may be killed.

It is kept by a process of its own, forked before anything of Ray runs, so that whoever has it can fork drivers. With
Redis or Valkey, where one is installed, what the head knows (its GCS) outlives it, and it may be killed too.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from tests.cluster.killing import titles

JOINED_WITHIN = 180.0
"""Seconds in which a node must be there, on a machine that does much else."""
_STORE = 150 << 20  # bytes of shared memory a node
_TALKS = "Mailbox"  # the actor that only passes on what workers say
_NO_WORKERS = ("IDLE", "Agent")  # those without work, and a node's own
_HEAD = 0  # in the place of a raylet's process id: the head's GCS


def store_of_heads() -> str:
    """The server that a head's state can be kept in; empty where none is installed."""
    return shutil.which("valkey-server") or shutil.which("redis-server") or ""


class Nodes:
    """The cluster. address: as RAY_ADDRESS names it."""

    def __init__(self, folder: Path, workers: int = 2, cpus: int = 1, *, lasting: bool = False) -> None:
        """Start it.

        Args:
            folder: with a short name: sockets lie in it.
            workers: nodes beside the head, of so many CPUs each.
            lasting: the head's state lies in Redis or Valkey.

        Raises: RuntimeError if a node does not come.
        """
        self._ours, theirs = Pipe()
        self._keeper = os.fork()
        if self._keeper == 0:
            self._ours.close()
            _Keeper(theirs, folder, cpus).keep(workers, lasting)
        theirs.close()
        self._coming = True
        self.whole((1 + workers) * JOINED_WITHIN)

    def kill(self, kind: str, rng: random.Random) -> str:
        """Kill -9 a raylet, a worker or the head. Returns what was killed; empty if there was nobody."""
        return {"raylet": self._kill_raylet, "worker": self._kill_worker, "head": self._kill_head}[kind](rng)

    def whole(self, seconds: float = JOINED_WITHIN) -> None:
        """Wait until all nodes are there again. Raises: RuntimeError if they do not come."""
        if not self._coming:
            return
        answer = self._ours.recv() if self._ours.poll(seconds) else f"no node came within {seconds:.0f} s"
        if isinstance(answer, str):
            raise RuntimeError(answer)
        self.address, self._gcs, self._raylets = answer
        self._coming = False

    def close(self) -> None:
        """All its processes end with the keeper's."""
        os.kill(self._keeper, signal.SIGTERM)
        os.waitpid(self._keeper, 0)
        self._ours.close()

    def _kill_raylet(self, rng: random.Random) -> str:
        """Of a node that takes work; a new node joins."""
        self.whole()
        pid = rng.choice(sorted(self._raylets))
        busy = _busy(pid).values()
        self._dead(pid, pid)
        return f"raylet {pid} with {', '.join(sorted(busy)) or 'nobody at work'}"

    def _kill_head(self, rng: random.Random) -> str:
        """Its GCS, which is started again."""
        self.whole()
        self._dead(self._gcs, _HEAD)
        return f"GCS {self._gcs}"

    def _kill_worker(self, rng: random.Random) -> str:
        """One that is at work."""
        busy = _busy(self._keeper)
        work = sorted(pid for pid, title in busy.items() if _TALKS not in title)
        if not work and rng.random() < 0.98:  # asked a few times a second: work comes first, and is soon there
            return ""
        pid = rng.choice(work or sorted(busy) or [0])
        if pid:
            os.kill(pid, signal.SIGKILL)
        return f"{busy[pid]} {pid}" if pid else ""

    def _dead(self, pid: int, told: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self._ours.send(told)
        self._coming = True


class _Keeper:
    """In the process that keeps the nodes. Told of a raylet that is dead, it starts a node in its place."""

    def __init__(self, pipe: Connection, folder: Path, cpus: int) -> None:
        self._pipe, self._folder, self._cpus = pipe, folder, cpus
        self._common: dict[str, Any] = {"temp_dir": str(folder), "object_store_memory": _STORE, "wait": False}
        self._store: subprocess.Popen[bytes] | None = None
        self._by_raylet: dict[int, Any] = {}

    def keep(self, workers: int, lasting: bool) -> NoReturn:
        """Until nobody asks any more. Says the address, the GCS and the raylets whenever all are there."""
        signal.signal(signal.SIGTERM, self._end)
        with (self._folder / "nodes.log").open("ab", buffering=0) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        try:
            if lasting:
                self._start_store()
            from ray.cluster_utils import Cluster

            self._cluster = Cluster()
            self._head = self._add(num_cpus=0, include_dashboard=False)
            while True:
                while len(self._by_raylet) < workers:
                    node = self._add(num_cpus=self._cpus)
                    self._by_raylet[_pid(node, "raylet")] = node
                self._pipe.send((self._cluster.address, _pid(self._head, "gcs_server"), list(self._by_raylet)))
                if (dead := self._pipe.recv()) == _HEAD:
                    self._head.kill_gcs_server(check_alive=False)  # what is left of it
                    self._head.start_gcs_server()
                else:
                    self._cluster.remove_node(self._by_raylet.pop(dead), allow_graceful=False)
        except EOFError:
            self._end()
        except BaseException:  # noqa: BLE001 (told to whoever waits)
            self._pipe.send(traceback.format_exc())
        self._end()

    def _add(self, **settings: Any) -> Any:
        node = self._cluster.add_node(**settings, **self._common)
        self._cluster._wait_for_node(node, JOINED_WITHIN)
        return node

    def _start_store(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._common["redis_password"] = secrets.token_hex(16)
        where = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(self._folder))
        how = ("--save", "", "--requirepass", self._common["redis_password"])
        self._store = subprocess.Popen([store_of_heads(), *where, *how], stdout=subprocess.DEVNULL)
        os.environ["RAY_REDIS_ADDRESS"] = f"127.0.0.1:{port}"
        end = time.monotonic() + JOINED_WITHIN
        while time.monotonic() < end:
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"{store_of_heads()} does not answer")

    def _end(self, *_: Any) -> NoReturn:
        """Its children are ended by the kernel (Ray asks for that), but for the store."""
        if self._store is not None:
            self._store.kill()
        sys.stderr.flush()
        os._exit(0)


def _busy(below: int) -> dict[int, str]:
    """Process id -> title of the workers below a process that work for a job."""
    return {pid: title for pid, title in titles(below).items() if not any(mark in title for mark in _NO_WORKERS)}


def _pid(node: Any, what: str) -> int:
    return node.all_processes[what][0].process.pid
