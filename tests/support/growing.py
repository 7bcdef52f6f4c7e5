"""A cluster that grows and shrinks: Ray's own autoscaler, with raylets on this host for machines.

Ray has `cluster_utils.AutoscalingCluster` for this. It ends every Ray of the host before it starts and when it stops,
and looks for a file that the wheel does not hold; so this starts the same parts, in a folder and on ports of their own,
and ends what carries its mark and nothing else.

A head without cores; `cpu` and `gpu` machines that come when work asks for them. A GPU is declared, not there: work is
placed by it and finds CUDA_VISIBLE_DEVICES set, and whatever then looks for the device finds none.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
GB = 1 << 30
MARK = "RETRIEVAL_GROWING_CLUSTER"
IDLE_SECONDS = 6.0
"""So long without work, and a machine goes."""
_HEAD, _HEAD_ID = "ray.head.default", "f" * 51 + "0" * 5  # as Ray's provider of such machines calls its head
_STORE = 100 * 2**20
_COMMANDS = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
TYPES: dict[str, dict[str, Any]] = {
    "cpu": {"resources": {"CPU": 2, "memory": 6 * GB}, "max_workers": 3},
    "gpu": {"resources": {"CPU": 2, "GPU": 1, "memory": 6 * GB}, "max_workers": 2},
}


@dataclass(frozen=True, slots=True)
class Growth:
    """What a command made of the cluster. Machines are counted by type, without the head.

    asked: demand that the autoscaler saw, `2 x CPU 1, memory 1.0 GB`. most: how many machines of each type there were,
    each at its time. after: those that are left when nothing has been done for long enough. code, said: of the command.
    """

    before: Counter[str]
    asked: tuple[str, ...]
    most: Counter[str]
    after: Counter[str]
    code: int
    said: str
    seconds: float
    shrunk: float


@dataclass(slots=True)
class GrowingCluster:
    """address: as RAY_ADDRESS names it. env: what a driver of it is started with."""

    address: str
    env: dict[str, str]
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def look(self) -> tuple[Counter[str], list[str]]:
        """The machines that are there, and what is asked for and not there yet, as the autoscaler has it."""
        status = self.status()
        there = [node for node in [*status.active_nodes, *status.idle_nodes] if node.node_id != _HEAD_ID]
        kinds = status.resource_demands
        every = [*kinds.ray_task_actor_demand, *kinds.placement_group_demand, *kinds.cluster_constraint_demand]
        asked = {_told(each.bundle, each.count) for one in every for each in one.bundles_by_count}
        return Counter(node.ray_node_type_name for node in there), sorted(asked)

    def status(self) -> Any:
        from ray.autoscaler.v2.sdk import get_cluster_status

        return get_cluster_status(self.address)

    def start(self, *command: str, env: Mapping[str, str] | None = None) -> tuple[subprocess.Popen[bytes], Path]:
        """A driver of this cluster, and the file of what it says."""
        log = Path(tempfile.mkdtemp(dir=self.env["RAY_TMPDIR"])) / "said"
        with log.open("wb") as said:
            driver = subprocess.Popen(
                command, cwd=ROOT, env=self.env | dict(env or {}), stdout=said, stderr=subprocess.STDOUT
            )
        self._running.append(driver)
        return driver, log

    def run(self, *command: str, within: float = 300.0, env: Mapping[str, str] | None = None) -> Growth:
        """Run a driver and look what becomes of the cluster, until it has shrunk or should have.

        Raises: TimeoutError if the command does not end.
        """
        (before, _), most, asked, began = self.look(), Counter[str](), dict[str, None](), time.monotonic()
        driver, log = self.start(*command, env=env)
        while driver.poll() is None:
            if time.monotonic() - began > within:
                driver.kill()
                raise TimeoutError(f"{' '.join(command)} is still at work after {within:g} s: {log.read_text()}")
            there, wanted = self.look()
            most, asked = most | there, asked | dict.fromkeys(wanted)
            time.sleep(0.2)
        ended = time.monotonic()
        after = self.shrunk()
        return Growth(
            before=before,
            asked=tuple(asked),
            most=most,
            after=after,
            code=driver.returncode,
            said=log.read_text(),
            seconds=ended - began,
            shrunk=time.monotonic() - ended,
        )

    def shrunk(self, within: float = 60.0) -> Counter[str]:
        """The machines that are left: none, or those that did not go in time."""
        end = time.monotonic() + within
        while (left := self.look()[0]) and time.monotonic() < end:
            time.sleep(0.2)
        return left

    def end_drivers(self) -> None:
        for driver in self._running:
            driver.kill()
            driver.wait()


@contextmanager
def growing_cluster(
    types: Mapping[str, Mapping[str, Any]] = TYPES, idle_seconds: float = IDLE_SECONDS, dashboard: bool = False
) -> Iterator[GrowingCluster]:
    """Args: types: the machines that may come. dashboard: Ray Train asks it about its own workers."""
    folder, mark = Path(tempfile.mkdtemp(prefix="rg-", dir="/tmp")), secrets.token_hex(8)
    (folder / "ray").mkdir()
    port, *others = free_ports(6)
    address = f"127.0.0.1:{port}"
    config = folder / "autoscaling.json"
    config.write_text(json.dumps(_config(address, types, idle_seconds)))
    env = _environment(folder, mark, others.pop())
    ports = ("dashboard-port", "dashboard-agent-listen-port", "metrics-export-port", "ray-client-server-port")
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"),
        *(f"--autoscaling-config={config}", "--num-cpus=0", "--num-gpus=0", "--node-ip-address=127.0.0.1"),
        *(f"--object-store-memory={_STORE}", f"--include-dashboard={dashboard}", "--disable-usage-stats"),
        *(f"--{name}={number}" for name, number in zip(ports, others, strict=True)),
    ]
    log = folder / "head.log"
    cluster = GrowingCluster(address, env | {"RAY_ADDRESS": address})
    try:
        with log.open("wb") as said:
            head = subprocess.Popen(
                command,
                env=env | {"RAY_CLOUD_INSTANCE_ID": _HEAD_ID, "RAY_NODE_TYPE_NAME": _HEAD},
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _wait_until_ready(cluster, head, log)
        yield cluster
    finally:
        cluster.end_drivers()
        _end(mark)
        shutil.rmtree(folder, ignore_errors=True)


def _config(address: str, types: Mapping[str, Mapping[str, Any]], idle_seconds: float) -> dict[str, Any]:
    """As `ray up` leaves it on a head, for Ray's provider of machines that are none."""
    offered = {
        name: {"node_config": {}, "min_workers": 0, **one}
        | {"resources": {**one["resources"], "object_store_memory": _STORE}}
        for name, one in types.items()
    }
    return {
        "cluster_name": "growing",
        "provider": {
            "type": "external",
            "module": "tests.support.machines.Machines",
            "gcs_address": address,
            "head_node_id": _HEAD_ID,
            "launch_multiple": True,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        **{name: {} for name in ("auth", "file_mounts")},
        **{f"{when}_commands": [] for when in _COMMANDS},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
        "max_workers": sum(one["max_workers"] for one in types.values()),
        "idle_timeout_minutes": idle_seconds / 60,
        "head_node_type": _HEAD,
        "available_node_types": offered | {_HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}},
    }


def _environment(folder: Path, mark: str, metrics_port: int) -> dict[str, str]:
    ours = {
        MARK: mark,
        "RAY_TMPDIR": str(folder),
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",  # as `ray up` starts a head
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # all of it listens on loopback
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "AUTOSCALER_METRIC_PORT": str(metrics_port),
        "PYTHONPATH": str(ROOT),
    }
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | ours


def _wait_until_ready(cluster: GrowingCluster, head: subprocess.Popen[bytes], log: Path, within: float = 90.0) -> None:
    end, failure = time.monotonic() + within, None
    while True:
        try:
            status = cluster.status()
            if status.stats.autoscaler_version is not None and [*status.active_nodes, *status.idle_nodes]:
                return
        except Exception as error:  # noqa: BLE001  whatever Ray says of a head that does not answer yet
            failure = error
        if head.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"The head did not start: {log.read_text()[-3000:]}") from failure
        time.sleep(0.3)


def _end(mark: str) -> None:
    """All processes that were started with this mark, and their own; again until none is left."""
    for _ in range(50):
        if not (left := _marked(mark)):
            return
        for process in left:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)


def _marked(mark: str) -> Sequence[int]:
    found, wanted = [], f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0") and not _is_over(entry):
                    found.append(int(entry.name))
            except OSError:  # it ended while we looked, or is another user's
                continue
    return found


def _is_over(process: Path) -> bool:
    """It has ended, and nobody has asked how yet."""
    return (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _told(bundle: Mapping[str, float], count: int) -> str:
    names = sorted(bundle.items(), key=lambda one: (one[0] != "GPU", one[0]))
    words = [f"{name} {much / GB:.1f} GB" if name == "memory" else f"{name} {much:g}" for name, much in names]
    return f"{count} x {', '.join(words) or 'nothing'}"
