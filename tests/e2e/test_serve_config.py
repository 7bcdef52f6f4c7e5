"""The service deployed by its config file, as on a cluster of one's own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from retrieval.artifacts.published import Pair
from tests.cluster.test_job_submit import processes_of, wait_until_ready
from tests.support.ports import free_ports
from tests.support.workspace import Workspace, make_workspace

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("served"))


@dataclass
class Machines:
    """Nodes of one cluster on this host, each with ports of its own."""

    folder: Path
    env: dict[str, str]
    gcs: int = 0
    dashboard: int = 0
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def head(self, *more: str) -> subprocess.Popen[bytes]:
        self.gcs, self.dashboard = free_ports(2)
        ports = (f"--port={self.gcs}", f"--dashboard-port={self.dashboard}")
        node = self._node("--head", *ports, f"--temp-dir={self.folder / 'ray'}", *more)
        wait_until_ready(self.address, self.env["RAY_AUTH_TOKEN"], node, self.folder / "node.log")
        return node

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    def _node(self, *arguments: str) -> subprocess.Popen[bytes]:
        names = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
        agents = [f"--{name}={port}" for name, port in zip(names, free_ports(len(names)), strict=True)]
        common = ("--block", "--node-ip-address=127.0.0.1", "--object-store-memory=134217728")
        with (self.folder / "node.log").open("ab") as log:
            node = subprocess.Popen(
                [BIN / "ray", "start", *common, *agents, *arguments],
                env=self.env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(node)
        return node

    def deploy(self, workspace: Path) -> str:
        """cluster/serve.yaml with a workspace, a port and the code of this checkout. Returns the service's address."""
        config: dict[str, Any] = yaml.safe_load((ROOT / "cluster/serve.yaml").read_text())
        [port] = free_ports(1)
        config["http_options"]["port"] = port
        [app] = config["applications"]
        del app["runtime_env"]  # the nodes find the code by PYTHONPATH
        app["args"] |= {"workspace": str(workspace), "max_replicas": 1, "replica_cpus": 0.5, "precision": "fp32"}
        (self.folder / "serve.yaml").write_text(yaml.safe_dump(config))
        command = [BIN / "serve", "deploy", self.folder / "serve.yaml", "-a", self.address]
        done = subprocess.run(command, env=self.env, text=True, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return f"http://127.0.0.1:{port}"

    def status(self) -> dict[str, Any]:
        command = [BIN / "serve", "status", "-a", self.address]
        done = subprocess.run(command, env=self.env, text=True, capture_output=True, timeout=60)
        return yaml.safe_load(done.stdout) or {}

    def close(self) -> None:
        """End these nodes alone. `ray stop` would end every cluster of the machine."""
        for node in self.started:
            node.send_signal(signal.SIGTERM)
        for node in self.started:
            try:
                node.wait(20)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()
        for process in processes_of(self.folder):
            os.kill(process, signal.SIGKILL)


@contextmanager
def machines(**env: str) -> Iterator[Machines]:
    folder = Path(tempfile.mkdtemp(prefix="sc-", dir="/tmp"))
    (folder / "ray").mkdir()
    paths = {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(folder)}
    made = Machines(folder, {**os.environ, **paths, **env})
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)


def answers(address: str, made: Workspace) -> bool:
    """Whether the service finds a stored photo."""
    image_id, photo = next(iter(made.photos.items()))
    try:
        answer = httpx.post(f"{address}/v1/search?k=3", content=photo.read_bytes(), timeout=20)
    except httpx.HTTPError:
        return False
    if answer.status_code != 200:
        return False
    return image_id in answer.text


def until(true: Callable[[], bool], within: float, else_say: Callable[[], object]) -> None:
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, else_say()
        time.sleep(0.5)


def is_running(status: dict[str, Any]) -> bool:
    return status.get("applications", {}).get("search", {}).get("status") == "RUNNING"


def test_the_service_comes_up_by_its_config_file(made: Workspace) -> None:
    with machines() as own:
        own.head("--num-cpus=2")
        address = own.deploy(Path(made.folder.path))
        until(lambda: answers(address, made), 180, own.status)
        assert is_running(own.status())
        info = httpx.get(f"{address}/v1/info", timeout=20).json()
        assert info["version"] == Pair.open(str(made.folder)).version
