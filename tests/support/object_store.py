"""An S3 server on loopback, or on a network of one's own: moto's, in a process of its own, so that it can be killed."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow.fs as pafs

_SERVER = """
import sys
import threading
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

inside, turn = DomainDispatcherApplication(create_backend_app), threading.Lock()

def one_at_a_time(environ, start_response):
    with turn:
        return list(inside(environ, start_response))

run_simple(sys.argv[1], int(sys.argv[2]), one_at_a_time, threaded=True)
"""
"""One request at a time: moto looks whether an object is there and puts it in two steps, S3 does it in one. Yet a
thread for each connection: clients open some that they never use."""


class ObjectStore:
    """Holds its objects in memory. `environment` is what a client must be told."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        with socket.socket() as free:
            free.bind((host, 0))
            self.port = free.getsockname()[1]
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        command = [sys.executable, "-c", _SERVER, host, str(self.port)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.fs = pafs.S3FileSystem(
            access_key="test",
            secret_key="test",
            region="us-east-1",
            endpoint_override=f"{host}:{self.port}",
            scheme="http",
            allow_bucket_creation=True,
        )
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection((host, self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    @property
    def place(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def options(self) -> str:
        """What an address of it ends with, for clients that are not told by their environment."""
        return f"?endpoint_override={self.host}:{self.port}&scheme=http"

    def bucket(self) -> str:
        """URI of a new bucket. No other ever had its name, so no client remembers anything of it."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.fs.create_dir(name)
        return f"s3://{name}"

    def objects(self, uri: str) -> dict[str, bytes]:
        """All that lies below a URI, by the name behind it."""
        path = uri.removeprefix("s3://")
        files = self.fs.get_file_info(pafs.FileSelector(path, recursive=True))
        names = [info.path for info in files if info.type == pafs.FileType.File]
        return {name.removeprefix(f"{path}/"): self.fs.open_input_file(name).read() for name in names}

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def object_store(host: str = "127.0.0.1") -> Iterator[ObjectStore]:
    made = ObjectStore(host)
    try:
        yield made
    finally:
        made.close()
