"""What the query service is measured beside: the same functions here, in several processes, and in a plain FastAPI app.

Set OMP_NUM_THREADS=1 before this is imported.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from serve.ingress import free_port
from serve.photos.messages import Looked
from serve.settings import ServeArgs

ROOT = Path(__file__).resolve().parents[1]


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
    """What one would write in ten minutes: uvicorn --factory service_beside:plain_app."""
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
        self.pids: list[int] = []
        self._results, self._ready, self._go = spawn.Queue(), spawn.Queue(), [spawn.Queue() for _ in range(num)]
        for go in self._go:
            arguments = (workspace, photos, seconds, self._results, self._ready, go)
            process = spawn.Process(target=in_process, args=arguments, daemon=True)
            process.start()
            self.pids.append(process.pid or 0)
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
def plain(workspace: str, workers: int) -> Iterator[tuple[int, int]]:
    """The plain app, up; its port, and its process."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "service_beside:plain_app", "--port", str(port)]
    command += ["--workers", str(workers), "--log-level", "error"]
    env = {**os.environ, "BENCH_WORKSPACE": workspace, "PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}"}
    process = subprocess.Popen(command, env=env, cwd=ROOT)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.2)
        time.sleep(5)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()
