"""`python -m serve` for real: HAProxy before replicas, answers, overload, slow senders, and what listens where."""

from __future__ import annotations

import concurrent.futures
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from serve.ingress import free_port
from serve.schemas import SearchAnswer
from tests.support.hostile import mutated, scan_bomb
from tests.support.workspace import Workspace, make_workspace

ROOT = Path(__file__).resolve().parents[2]
JPEG = {"Content-Type": "image/jpeg"}


@dataclass(frozen=True, slots=True)
class Served:
    port: int
    made: Workspace
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made, port = make_workspace(tmp_path_factory.mktemp("ingress")), free_port()
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as ray_folder:  # short: sockets lie below it
        command = [sys.executable, "-m", "serve", "--workspace", str(made.folder), "--port", str(port)]
        command += ["--engine", "torch", "--precision", "fp32", "--max-uploads", "300", "--max-queue", "4"]
        env = {**os.environ, "RAY_TMPDIR": ray_folder, "RAY_USAGE_STATS_ENABLED": "0"}
        env.pop("RAY_ADDRESS", None)
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE)
        assert process.stdout is not None
        line = next((line for line in process.stdout if line.startswith(b"Serving ")), b"")
        assert f"http://127.0.0.1:{port} until Ctrl-C" in line.decode(), "it did not come up"
        yield Served(port, made, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        process.stdout.close()
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            pass


def ask(served: Served, photo: bytes) -> httpx.Response:
    return httpx.post(f"{served.url}/v1/search?k=3", content=photo, headers=JPEG, timeout=60)


def photo_of(served: Served) -> bytes:
    return next(iter(served.made.photos.values())).read_bytes()


def test_it_answers_and_says_that_all_is_well(served: Served) -> None:
    image_id, path = next(iter(served.made.photos.items()))
    answer = SearchAnswer.model_validate(ask(served, path.read_bytes()).json())
    assert answer.results[0].image_id == image_id
    assert httpx.get(f"{served.url}/readyz").json()["status"] == "ok"
    assert "retrieval_stage_seconds" in httpx.get(f"{served.url}/metrics").text


def listening() -> list[tuple[str, int, str]]:
    """(address, port, process name) of everything that waits for connections."""
    owners = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            for descriptor in (process / "fd").iterdir():
                if found := re.match(r"socket:\[(\d+)\]", os.readlink(descriptor)):
                    owners[found[1]] = name
        except OSError:
            continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A":
                address, port = local.split(":")
                found.append((address, int(port, 16), owners.get(rest[5], "")))
    return found


def test_neither_haproxy_nor_a_replica_takes_requests_of_others(served: Served) -> None:
    loopback = "0100007F"
    mine = listening()
    assert (loopback, served.port) in [(address, port) for address, port, _ in mine]
    proxies = [(address, port) for address, port, name in mine if "haproxy" in name]
    assert set(proxies) == {(loopback, served.port)}, "HAProxy's metrics and statistics have no port"
    replicas = [address for address, port, name in mine if name.startswith("ray::Serve") and 30000 <= port <= 31000]
    assert replicas and set(replicas) == {loopback}


def test_a_crowd_is_answered_or_refused_with_the_time_to_come_back(served: Served) -> None:
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        responses = list(pool.map(lambda _: ask(served, photo_of(served)), range(64)))
    assert {response.status_code for response in responses} <= {200, 503}
    for response in responses:
        if response.status_code == 503:
            assert response.json()["error"]["reason"] == "busy" and response.headers["retry-after"] == "1"
    assert sum(response.status_code == 200 for response in responses) >= 8


def test_200_slow_senders_keep_nobody_out(served: Served) -> None:
    head = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 100000\r\n\r\n"
    slow = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(200)]
    try:
        for connection in slow:
            connection.sendall(head + b"\xff")
        end = time.monotonic() + 6
        answered = []
        while time.monotonic() < end:
            for connection in slow:
                try:
                    connection.send(b"x", socket.MSG_DONTWAIT)
                except OSError:
                    continue  # let go already
            answered.append(ask(served, photo_of(served)).status_code)
        assert set(answered) == {200}
        slow[0].settimeout(10)
        assert b" 408 " in slow[0].recv(4096).split(b"\r\n")[0]
    finally:
        for connection in slow:
            connection.close()


def test_hostile_photos_get_a_refusal_and_the_next_good_one_its_answer(served: Served) -> None:
    with httpx.Client(timeout=60, headers=JPEG) as client:
        for photo in [*mutated(60, seed=7), scan_bomb(3000)]:
            response = client.post(f"{served.url}/v1/search", content=photo)
            assert response.status_code in (200, 400, 413, 415, 422), response.text
    assert ask(served, photo_of(served)).status_code == 200
