"""An MLflow server on loopback, as the docs start one: a database, and artifacts that go through it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


class MlflowServer:
    """Its address stays the same from one start to the next; so do its database and its artifacts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--backend-store-uri", f"sqlite:///{self.folder}/server.db", "--workers", "1"),
            *("--serve-artifacts", "--artifacts-destination", str(self.folder / "artifacts")),
        ]

    def start(self, within: float = 180.0) -> None:
        """Until it answers."""
        env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), cwd=self.folder, env=env, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + within
        while not self.answers():
            assert self._process.poll() is None, (self.folder / "server.log").read_text()[-3000:]
            assert time.monotonic() < end, (self.folder / "server.log").read_text()[-3000:]
            time.sleep(0.2)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def kill(self) -> None:
        """At once, with all that it started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
