"""The end of `make demo`: a service started, asked once, and stopped."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from serve.demo import QueryOnceConfig, ask, main
from serve.schemas import Answer
from tests.support.workspace import make_workspace

ROOT = Path(__file__).resolve().parents[2]


def test_one_question_is_answered_and_the_service_is_gone(tmp_path: Path) -> None:
    made = make_workspace(tmp_path, num_identities=6)
    about = ["--workspace", str(made.folder), "--source", str(tmp_path / "drawn"), "--k", "3"]
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as ray_folder:  # short: sockets lie below it
        env = {**os.environ, "RAY_TMPDIR": ray_folder}
        command = [sys.executable, "-m", "serve.demo", *about]
        done = subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True, timeout=300)
    shown = done.stdout
    start = shown.index("\n{") + 1
    answer = Answer.model_validate(json.JSONDecoder().raw_decode(shown[start:])[0])
    assert len(answer.results) == 3
    assert "$ curl" in shown
    assert answer.results[0].image_id in shown
    assert "Asked with 1 photo: " in shown and "of its 3 nearest show the same, " in shown
    asked = next(line for line in shown.splitlines() if line.startswith("$ curl"))
    assert all(not asked.split()[-2].endswith(result.image_id) for result in answer.results), "the photo finds itself"
    port = int(shown.split("127.0.0.1:")[1].split("/")[0])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the service still listens"


class _Echo(BaseHTTPRequestHandler):
    """Answers with the number of bytes it was sent."""

    def do_POST(self) -> None:
        size = len(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"bytes": size}).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the log is no part of the test."""


@pytest.mark.parametrize("program", ["curl", "python"])
def test_the_same_is_asked_without_curl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x" * 1000)
    monkeypatch.setattr("shutil.which", lambda name: name if name == program else None)
    with HTTPServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert ask(f"http://127.0.0.1:{server.server_port}/search", tmp_path / "photo.jpg") == {"bytes": 1000}
        thread.join()


def test_a_wrong_source_is_named(tmp_path: Path) -> None:
    made = make_workspace(tmp_path, num_identities=6)
    with pytest.raises(ValueError, match="There is no img_align_celeba/.* Name the folder"):
        main(QueryOnceConfig(workspace=str(made.folder), source=str(tmp_path)))
