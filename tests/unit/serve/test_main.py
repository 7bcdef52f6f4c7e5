"""`python -m serve`: what is wrong is said before anything is started."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from serve.__main__ import ServeConfig, _why, check_room, running
from serve.settings import ServeArgs
from tests.support.workspace import make_workspace

ROOT = Path(__file__).resolve().parents[3]


def test_a_workspace_that_is_not_finished_and_a_port_that_is_taken_are_told(tmp_path: Path) -> None:
    empty = ServeConfig(settings=ServeArgs(workspace=str(tmp_path / "none")))
    with pytest.raises(ValueError, match="no pipeline has finished there"), running(empty):
        pass
    made = make_workspace(tmp_path, num_identities=2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = ServeConfig(settings=ServeArgs(workspace=str(made.folder)), port=port)
        with pytest.raises(ValueError, match=f"Port {port} of 127.0.0.1 cannot be had"), running(config):
            pass


def test_more_than_the_machine_has_is_said_instead_of_waited_for() -> None:
    settings = ServeArgs(workspace="w", index_parts=3, min_replicas=2, max_replicas=2, replica_cpus=0.8)
    check_room(settings, 4.0)
    with pytest.raises(
        ValueError, match=r"2 replicas and 3 parts .* of 0.8 CPUs each.*the 2 CPUs.*--replica-cpus 0.4,"
    ):
        check_room(settings, 2.0)
    check_room(ServeArgs(workspace="w", min_replicas=2), 2.0)


def test_it_listens_on_loopback_unless_told_otherwise() -> None:
    assert ServeConfig(settings=ServeArgs(workspace="w")).host == "127.0.0.1"


def test_a_wrong_setting_is_told_without_loading_ray(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "serve", "--workspace", str(tmp_path), "--max-k", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "serve: --max-k: Input should be" in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.rpartition("|")[2].strip() in ("ray", "torch", "cv2")]


def _status(*messages: str) -> SimpleNamespace:
    deployments = {str(number): SimpleNamespace(message=message) for number, message in enumerate(messages)}
    return SimpleNamespace(applications={"default": SimpleNamespace(deployments=deployments)})


def test_what_a_replica_said_when_it_did_not_come_up_is_told_and_nothing_else() -> None:
    """As Ray Serve tells it: a stack within a stack, the reason last, in one line or many."""
    stack = (
        "The deployment failed to start 3 times in a row. See controller logs for details. Error:\n"
        "ray::ServeReplica.initialize_and_get_metadata() (pid=1, ip=127.0.0.1)\n"
        '  File "replica.py", line 1928, in initialize\n    raise RuntimeError(traceback.format_exc()) from None\n'
        "RuntimeError: Traceback (most recent call last):\n"
        '  File "replica.py", line 71, in __init__\n    raise ValueError(f"No version can be served: {why}")\n'
        "ValueError: No version can be served: catalog.parquet: Error: damaged."
    )
    told = "No version can be served: catalog.parquet: Error: damaged."
    assert _why(_status(stack, "", stack)) == told
    assert _why(_status(stack.replace("\n", "\\n"))) == told
    assert _why(_status("", "still starting")) == ""
    assert _why(_status(stack, "a.b.OtherError: no memory")) == f"{told} no memory"
