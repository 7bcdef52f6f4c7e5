"""Kill a whole query service at random moments while four clients add and delete over HTTP, and look what is left.

    python benchmarks/kill_service.py --rounds 20

The service (a replica's own API, without Ray before it) runs in a process group of its own on loopback, over a small
drawn gallery. Each round it is started, changed by four clients, and its whole group is killed with SIGKILL. The next
start must list every image whose addition was answered, under the label of that addition, and none whose deletion was;
of a change that was not answered either outcome is right.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from serve.settings import ServeArgs
from tests.support.workspace import make_workspace

CLIENTS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """How often, and how long each time."""

    rounds: int = 20
    """Times that the service is killed."""
    min_s: float = 0.5
    """Shortest time from the first change to the kill, in seconds."""
    max_s: float = 3.0
    """Longest."""
    seed: int = 0
    """Of the moments and of what is changed."""


def main(cfg: Config) -> dict[str, int]:
    """Run and print the sum. Returns how many changes were answered and how many were not.

    Raises: AssertionError for the first image that is there and must not be, or must and is not.
    """
    rng, known = random.Random(cfg.seed), dict[str, set[str | None]]()
    counts = {"answered": 0, "unanswered": 0}
    with tempfile.TemporaryDirectory() as folder:
        made = make_workspace(Path(folder), num_identities=2)
        photo = next(iter(made.photos.values())).read_bytes()
        for number in range(cfg.rounds + 1):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            server = subprocess.Popen(
                [sys.executable, __file__, "serve", str(made.folder), str(port)], start_new_session=True
            )
            try:
                wait_until_ready(port, server)
                check(port, known, number)
                if number < cfg.rounds:
                    change(server, port, photo, known, counts, rng, cfg)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(server.pid, signal.SIGKILL)
                server.wait()
    print(
        f"{cfg.rounds} kills of the service under {CLIENTS} clients: {counts['answered']} changes answered, "
        f"{counts['unanswered']} not; every answered one kept, nothing else there."
    )
    return counts


def change(
    server: subprocess.Popen[bytes],
    port: int,
    photo: bytes,
    known: dict[str, set[str | None]],
    counts: dict[str, int],
    rng: random.Random,
    cfg: Config,
) -> None:
    """Four clients change names of their own until the service is killed under them."""
    lock = threading.Lock()

    def client(who: int, seed: int) -> None:
        mine = random.Random(seed)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            while True:
                name, label = f"c{who}/{mine.randrange(5)}.jpg", f"l{mine.randrange(1 << 40)}"
                delete = mine.random() < 0.3
                with lock:  # from now on either outcome is right
                    before = known.setdefault(name, {None})
                    known[name] = before | {None if delete else label}
                try:
                    if delete:
                        answer = http.delete(f"/v1/images/{name.replace('/', '%2F')}")
                    else:
                        params = {"image_id": name, "label": label, "replace": "true"}
                        answer = http.post("/v1/images", params=params, content=photo)
                except httpx.HTTPError:
                    with lock:
                        counts["unanswered"] += 1
                    return
                assert answer.status_code == 200 or (delete and answer.status_code == 404), answer.text
                # The same bytes again under the same name change nothing, so the label stays as it was then.
                with lock:
                    same = not delete and answer.json()["items"][0]["status"] == 200
                    known[name] = before if same else {None if delete else label}
                    counts["answered"] += 1

    threads = [threading.Thread(target=client, args=(who, rng.randrange(1 << 30))) for who in range(CLIENTS)]
    for thread in threads:
        thread.start()
    time.sleep(rng.uniform(cfg.min_s, cfg.max_s))
    os.killpg(server.pid, signal.SIGKILL)
    for thread in threads:
        thread.join()


def check(port: int, known: dict[str, set[str | None]], number: int) -> None:
    """What is listed against what was answered; what was open is known from now on."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        found: dict[str, str] = {}
        after: str | None = None
        while True:
            params = {"limit": 1000, "filter": json.dumps({"folder": [f"c{who}" for who in range(CLIENTS)]})}
            page = http.get("/v1/images", params=params | ({"after": after} if after else {})).json()
            found |= {one["image_id"]: one["label"] for one in page["images"]}
            after = page["next"]
            if after is None:
                break
        for name in {*known, *found}:
            allowed = known.get(name, {None})
            assert found.get(name) in allowed, f"round {number}: {name} is {found.get(name)}, expected one of {allowed}"
            known[name] = {found.get(name)}
            if name in found:
                assert http.get(f"/v1/images/{name.replace('/', '%2F')}/thumbnail").content[:2] == b"\xff\xd8"


def wait_until_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/livez", timeout=5).status_code == 200:
                return
        assert server.poll() is None, "the service ended by itself"
        time.sleep(0.1)
    raise AssertionError("the service did not start within 120 s")


async def serve(workspace: str, port: int) -> None:
    """What each round starts."""
    import uvicorn

    from serve.replica import build_front
    from serve.service import Service

    args = ServeArgs(workspace=workspace, device="cpu", precision="fp32", engine="torch")
    service = await Service.open(args)
    server = uvicorn.Server(uvicorn.Config(build_front(service), host="127.0.0.1", port=port, log_level="error"))
    await server.serve()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(sys.argv[2], int(sys.argv[3])))
    else:
        main(tyro.cli(Config, description=__doc__))
