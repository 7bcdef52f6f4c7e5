"""`ray job submit` against a real cluster started here: the way every job reaches a cluster of many machines."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest
from retrieval.data.demo.faces import draw_collection
from tests.support.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

# What `python -m ray_jobs.<job> --help` does for each job, in one process: torch and ray are imported once.
HELP_OF_ALL = """
import runpy, sys
for job in ("ingest", "train", "embed", "build_index", "evaluate", "pipeline"):
    sys.argv = [job, "--help"]
    try:
        runpy.run_module(f"ray_jobs.{job}", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        print("EXPLAINED", job, end.code)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    address: str
    env: dict[str, str]

    def submit(self, *command: str, cwd: Path = ROOT, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """`ray job submit --working-dir . -- COMMAND`; output and success are the job's."""
        arguments = [BIN / "ray", "job", "submit", "--address", self.address, "--working-dir", ".", "--", *command]
        return subprocess.run(arguments, cwd=cwd, env=self.env, text=True, capture_output=True, timeout=timeout)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """`ray start --head` on free ports and in a temporary folder of its own, so that no other cluster is touched."""
    folder = Path(tempfile.mkdtemp(prefix="rj-", dir="/tmp"))
    (folder / "ray").mkdir()
    # Jobs run the `python` on the PATH the cluster was started with.
    env = {**os.environ, "RAY_TMPDIR": str(folder), "PATH": f"{BIN}:{os.environ['PATH']}"}
    names = (
        "port",
        "dashboard-port",
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "metrics-export-port",
    )
    log = folder / "head.log"
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    with log.open("wb") as output:
        head = subprocess.Popen(
            [
                *(BIN / "ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=2"),
                *(f"--{name}={port}" for name, port in ports.items()),
                *("--object-store-memory=268435456", f"--temp-dir={folder / 'ray'}"),
            ],
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{ports['dashboard-port']}"
        wait_until_ready(address, env["RAY_AUTH_TOKEN"], head, log)
        yield Cluster(address=address, env=env)
    finally:
        stop(head, folder)


def wait_until_ready(address: str, token: str, head: subprocess.Popen[bytes], log: Path, timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    request = urllib.request.Request(f"{address}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    while time.monotonic() < deadline:
        assert head.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise TimeoutError(f"No job server at {address} after {timeout} s")


def processes_of(folder: Path) -> list[int]:
    """Ids of the running processes that name `folder` in their command line: those of one cluster, and of no other."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if str(folder).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:  # it ended while we looked
                continue
    return found


def stop(head: subprocess.Popen[bytes], folder: Path) -> None:
    """End this cluster alone. `ray stop` would end every cluster on the machine."""
    head.send_signal(signal.SIGTERM)
    try:
        head.wait(20)
    except subprocess.TimeoutExpired:
        head.kill()
        head.wait()
    deadline = time.monotonic() + 10
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for process in left:
        os.kill(process, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_caller_without_the_token_is_refused(cluster: Cluster) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(f"{cluster.address}/api/jobs/", timeout=10)
    assert refusal.value.code == 401
    refusal.value.close()


def test_a_failing_job_fails_the_command(cluster: Cluster) -> None:
    done = cluster.submit("python", "-c", "raise SystemExit(3)")
    assert done.returncode != 0, done.stdout


def test_the_cluster_runs_our_interpreter_with_only_our_code(cluster: Cluster) -> None:
    code = "import os, sys, retrieval.artifacts, ray_jobs.runtime.session; "
    code += "print('FOUND', sys.executable, sorted(os.listdir('.')))"
    done = cluster.submit("python", "-c", code)
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    assert str(BIN) in line
    assert "'retrieval'" in line
    assert not any(f"'{name}'" in line for name in (".venv", ".git", "tests", "docs", "workspace"))


def test_every_job_explains_itself_on_the_cluster(cluster: Cluster) -> None:
    done = cluster.submit("python", "-c", HELP_OF_ALL)
    assert done.returncode == 0, done.stdout + done.stderr
    explained = re.findall(r"^EXPLAINED (\w+) 0$", done.stdout, flags=re.MULTILINE)
    assert explained == ["ingest", "train", "embed", "build_index", "evaluate", "pipeline"]
    assert len(re.findall(r"^usage: ", done.stdout, flags=re.MULTILINE)) == 6


def test_a_job_submitted_to_the_cluster_does_its_work_there(cluster: Cluster, tmp_path: Path) -> None:
    draw_collection(tmp_path / "photos", num_identities=4, images_per_identity=3, size=(120, 147))
    out = tmp_path / "collection"
    command = (
        "python",
        "-m",
        "ray_jobs.ingest",
        "--source",
        str(tmp_path / "photos"),
        "--out",
        str(out),
        "--size",
        "64",
    )
    done = cluster.submit(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = read_manifest(Folder.of(out), "collection")
    assert manifest.counts["source"] == 12 == manifest.counts["stored"] + manifest.counts["rejected"]
    assert f"collection at {out}" in done.stdout, "its log comes back to the one who submitted it"
