"""Swaps in a row while clients ask: how many answers failed, and how many mixed two versions. Over HTTP, on Ray Serve.

    python benchmarks/swap_under_load.py
    python benchmarks/swap_under_load.py --workspace workspace/faces --photos photos --swaps 50 --replicas 2

Each client knows what every version answers to every photo, asked while nothing changed: an answer whose version,
model, index, images and scores are not all of one version is mixed. Without --workspace, versions of a small drawn
gallery.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import numpy as np
import pyarrow.fs as pafs
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.published import go_to, history
from tests.support.versions import Expected, expected_of, make_versions


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What to swap, how often, under how much load."""

    workspace: Path | None = None
    """A workspace that published two versions or more; its CURRENT.json is put back at the end. None draws one."""
    photos: Path | None = None
    """Folder of photos to ask with, JPEG. Needed with --workspace."""
    swaps: int = 50
    """Swaps in a row."""
    clients: int = 4
    """Clients that ask all the time."""
    replicas: int = 2
    """Replicas of the service; each swaps by itself."""
    parts: int = 1
    """Processes that the index is spread over (`index_parts`)."""
    ingress: Literal["haproxy", "serve"] = "haproxy"
    """How requests reach them."""
    bucket: str | None = None
    """Address in an object store to which the drawn gallery is copied, and from which it is served."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A service under test. address: http://127.0.0.1:PORT. photos: bytes to ask with. names: of the versions."""

    address: str
    workspace: Folder
    photos: list[bytes]
    names: list[str]
    replicas: int


@contextlib.contextmanager
def running(
    cfg: Config, around: Callable[[Folder], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
) -> Iterator[Running]:
    """The service on Ray Serve, on this machine, with a cluster of its own. Args: around: entered with the workspace
    before the service starts, left when it has ended."""
    with tempfile.TemporaryDirectory(prefix="sw") as scratch:
        workspace, photos, names = prepared(cfg, Path(scratch))
        from serve.__main__ import ServeConfig
        from serve.__main__ import running as service
        from serve.ingress import free_port
        from serve.settings import ServeArgs

        how = {"replica_cpus": 0.5, "min_replicas": cfg.replicas, "max_replicas": cfg.replicas, "precision": "fp32"}
        how |= {"index_parts": cfg.parts}
        args = ServeArgs(**{"workspace": str(workspace), "device": "cpu", "watch_s": 0.2, **how})
        started = ServeConfig(settings=args, port=free_port(), ingress=cfg.ingress)
        ray_options = {"num_cpus": max(2, cfg.replicas + cfg.parts), "_temp_dir": f"{scratch}/r"}
        with around(workspace), service(started, **ray_options) as address:
            yield Running(address=address, workspace=workspace, photos=photos, names=names, replicas=cfg.replicas)


def prepared(cfg: Config, scratch: Path) -> tuple[Folder, list[bytes], list[str]]:
    """The workspace to serve, photos to ask with, and the versions to go through."""
    if cfg.workspace is None:
        made, names = make_versions(scratch, 3)
        folder = made.folder
        if cfg.bucket is not None:
            folder, local = Folder.of(cfg.bucket), pafs.LocalFileSystem()
            pafs.copy_files(made.folder.path, folder.path, source_filesystem=local, destination_filesystem=folder.fs)
        return folder, [photo.read_bytes() for photo in list(made.photos.values())[:8]], names
    if cfg.photos is None:
        raise ValueError("With --workspace, name a folder of photos to ask with: --photos.")
    workspace = Folder.of(cfg.workspace)
    names = [one.version for one in history(workspace)[1]]
    if len(names) < 2:
        raise ValueError(f"{workspace} has published one version. Publish another.")
    found = sorted(path for path in cfg.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:32]
    return workspace, [path.read_bytes() for path in found], names


def ask(client: httpx.Client, photo: bytes) -> httpx.Response:
    return client.post("/v1/search?k=5", content=photo, headers={"Content-Type": "image/jpeg"})


def wait_for(client: httpx.Client, version: str, replicas: int, within: float = 120.0) -> float:
    """Seconds until every replica answers with this version. Raises: TimeoutError."""
    began, seen = time.monotonic(), set()
    while time.monotonic() - began < within:
        info = client.get("/v1/info").json()
        if info["version"] == version:
            seen.add(info["replica"])
        else:
            seen.discard(info["replica"])
        if len(seen) >= replicas:
            return time.monotonic() - began
        time.sleep(0.01)
    raise TimeoutError(f"not every replica answers with {version} after {within:g} s")


def known_answers(client: httpx.Client, at: Running) -> dict[tuple[str, int], Expected]:
    """(version, number of the photo) -> what it answers. Photos that a version refuses are left out."""
    known = {}
    for name in at.names:
        go_to(at.workspace, name)
        wait_for(client, name, at.replicas)
        for number, photo in enumerate(at.photos):
            if (response := ask(client, photo)).status_code == 200:
                answer = response.json()
                if answer["version"] != name:
                    raise ValueError(f"{answer['version']} answers, and every replica said that it has {name}.")
                known[name, number] = expected_of(answer)
    return known


class Load:
    """Clients that ask all the time, and what came of it. Failures are counted by their reason."""

    def __init__(
        self, at: Running, known: dict[tuple[str, int], Expected], num: int, *, only_first: bool = False
    ) -> None:
        """Args: only_first: look at the best score alone, for a gallery that changes meanwhile."""
        self._only_first = only_first
        self.counts: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.failed_at: list[float] = []
        self._stop = threading.Event()
        self._at, self._known = at, known
        numbers = sorted({number for _, number in known})
        self._usable = [n for n in numbers if all((name, n) in known for name in {name for name, _ in known})]
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(num)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client(self, number: int) -> None:
        with httpx.Client(base_url=self._at.address, timeout=60) as client:
            for turn in itertools.count(number):
                if self._stop.is_set():
                    return
                photo = self._usable[turn % len(self._usable)]
                began = time.monotonic()
                what = self._one(client, photo)
                self.counts[what] += 1
                if what.startswith("version"):
                    self.seconds.append(time.monotonic() - began)
                else:
                    self.failed_at.append(time.monotonic())
                    time.sleep(0.05)

    def _one(self, client: httpx.Client, photo: int) -> str:
        """One search, and one thumbnail of its results."""
        try:
            response = ask(client, self._at.photos[photo])
            if response.status_code != 200:
                return f"failed: {reason_of(response)}"
            answer = response.json()
            crop = client.get(answer["results"][photo % len(answer["results"])]["thumbnail"])
            if crop.status_code != 200:
                return f"failed: thumbnail {reason_of(crop)}"
        except httpx.HTTPError as error:
            return f"failed: {type(error).__name__}"
        expected = self._known.get((answer["version"], photo))
        if self._only_first:
            return f"version {answer['version']}" if answer["results"][0]["score"] > 0.99 else "mixed: not found"
        differs = "a version nobody published" if expected is None else expected.differs(answer)
        return f"mixed: {differs}" if differs else f"version {answer['version']}"

    @property
    def failed(self) -> int:
        return sum(num for what, num in self.counts.items() if what.startswith("failed"))

    @property
    def mixed(self) -> int:
        return sum(num for what, num in self.counts.items() if what.startswith("mixed"))


def reason_of(response: httpx.Response) -> str:
    """Status and reason of a refusal; a body that is none of ours says so."""
    try:
        return f"{response.status_code} {response.json()['error']['reason']}"
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code} without a reason"


def main(cfg: Config) -> int:
    """Swap, and print. Returns how many answers failed or were mixed."""
    with running(cfg) as at, httpx.Client(base_url=at.address, timeout=60) as client:
        before = at.workspace.read_bytes("CURRENT.json")
        try:
            known, took = known_answers(client, at), []
            with Load(at, known, cfg.clients) as load:
                time.sleep(2.0)
                calm = len(load.seconds)
                for turn in range(cfg.swaps):
                    name = at.names[turn % len(at.names)]
                    go_to(at.workspace, name)
                    took.append(wait_for(client, name, at.replicas))
        finally:
            at.workspace.write_bytes("CURRENT.json", before)
    print(f"{cfg.swaps} swaps, {cfg.replicas} replicas, {cfg.clients} clients, {sum(load.counts.values())} answers")
    for what, num in sorted(load.counts.items()):
        print(f"  {num:6}  {what}")
    print(f"failed {load.failed}, mixed {load.mixed}")
    print(f"a swap, until every replica answered with it: median {np.median(took):.2f} s, longest {max(took):.2f} s")
    for name, seconds in (("before", load.seconds[:calm]), ("while swapping", load.seconds[calm:])):
        if seconds:
            p50, p99 = np.percentile(seconds, (50, 99)) * 1000
            print(f"an answer {name}: p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    return load.failed + load.mixed


if __name__ == "__main__":
    sys.exit(1 if main(tyro.cli(Config, description=__doc__)) else 0)
