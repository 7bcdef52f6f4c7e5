"""The process that decodes: it answers, it is quiet, and it ends with the service."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retrieval.images.settings import PrepareConfig
from serve.photos.framing import receive, send
from serve.photos.limits import Caps
from serve.photos.messages import kind_to_json
from tests.support.hostile import written

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def worker() -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    ours, theirs = socket.socketpair()
    command = [
        sys.executable,
        "-m",
        "serve.photos.worker",
        str(theirs.fileno()),
        json.dumps(dataclasses.asdict(Caps())),
    ]
    process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
    theirs.close()
    ours.settimeout(60)
    message = receive(ours)
    assert message is not None and message[0] == {"ready": process.pid}
    yield process, ours
    ours.close()
    assert process.wait(30) == 0, "it ends when the service is gone"
    process.stderr.close()  # type: ignore[union-attr]


def ask(connection: socket.socket, head: dict[str, Any], body: bytes = b"") -> dict[str, Any]:
    send(connection, head, [body])
    message = receive(connection)
    assert message is not None
    return message[0]


def test_it_learns_and_looks_and_says_nothing_of_photos(worker: tuple[subprocess.Popen[bytes], socket.socket]) -> None:
    process, connection = worker
    whole = kind_to_json(PrepareConfig(crop="none", size=32))
    assert ask(connection, {"learn": whole, "network": False}) == {"learnt": 1}
    question = {"kind": 0, "faces": "best", "box": None, "seconds": 5.0}
    assert ask(connection, question, written("JPEG"))["width"] == 64
    damaged = bytearray(written("JPEG", side=300))
    damaged[-200:-100] = b"\0" * 100
    assert "width" in ask(connection, question, bytes(damaged)), "libjpeg only warns"
    assert ask(connection, question, b"no photo")["unusable"]["reason"] == "not-an-image"
    connection.close()
    assert process.stderr is not None and process.stderr.read() == b""
