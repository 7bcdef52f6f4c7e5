"""A running query service for tests: a real Ray Serve on loopback, a real (tiny, random-weight) model and index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
from ray import serve

from serve.app import build_app
from serve.ingress import free_port
from serve.settings import ServeArgs
from tests.support.workspace import Workspace, make_workspace

MAX_BODY, MAX_QUEUE, MAX_UPLOADS, MAX_K, TIMEOUT = 300_000, 4, 8, 12, 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """A running service and what it runs on."""

    client: httpx.Client
    port: int
    made: Workspace


@contextmanager
def running_service(
    folder: Path,
    made: Workspace | None = None,
    *,
    engine: Literal["auto", "torch", "onnxruntime"] = "torch",
    **settings: Any,
) -> Iterator[Service]:
    """Serve `made`, or a fresh workspace made in `folder`. Ray must be initialised; Serve is shut down at the end."""
    made = made or make_workspace(folder)
    port = free_port()
    args = ServeArgs(
        workspace=str(made.folder),
        max_body_bytes=MAX_BODY,
        max_pixels=2_000_000,
        max_k=MAX_K,
        max_queue=MAX_QUEUE,
        timeout_s=TIMEOUT,
        precision="fp32",
        engine=engine,
        replica_cpus=0.5,
        max_replicas=1,
        max_uploads=MAX_UPLOADS,
        upload_grace_s=8.0,
        upload_timeout_s=TIMEOUT,
        **settings,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(build_app(args))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield Service(client=client, port=port, made=made)
    finally:
        serve.shutdown()
