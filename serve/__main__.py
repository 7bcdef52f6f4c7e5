"""Serve a finished workspace over HTTP until Ctrl-C.

python -m serve --workspace workspace/demo-people
"""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import ValidationError

from serve.ingress import Ingress, environment, free_port
from serve.settings import ServeArgs


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """Where the service listens, and its settings."""

    settings: Annotated[ServeArgs, tyro.conf.arg(name="")]
    """Those of the service itself, each with a flag of its own."""
    host: str = "127.0.0.1"
    """Address to listen on. Loopback: this machine only. Before another, make keys: python -m serve.keys."""
    port: int = 8000
    """Port to listen on."""
    ingress: Ingress = "haproxy"
    """How requests reach the replicas: haproxy, or serve (Ray Serve's own proxy, in Python)."""


def main(cfg: ServeConfig) -> None:
    """Returns after Ctrl-C or SIGTERM.

    Raises: ValueError if the workspace is not finished, or the port is taken.
    """
    done = threading.Event()
    with running(cfg) as url:
        for number in (signal.SIGINT, signal.SIGTERM):  # after Ray, which has its own ideas of them
            signal.signal(number, lambda *_: done.set())
        sys.stdout.write(f"Serving {cfg.settings.workspace} on {url} until Ctrl-C\n")
        sys.stdout.flush()
        done.wait()


@contextmanager
def running(cfg: ServeConfig, **ray_options: Any) -> Iterator[str]:
    """The service, up; its address. Ray is started here for it alone, and ended with it.

    Raises: ValueError as `main`.
    """
    from retrieval.artifacts.published import Pair

    Pair.open(cfg.settings.workspace)  # said before anything is started
    try:
        free_port(cfg.port, cfg.host)
    except OSError as error:
        raise ValueError(f"Port {cfg.port} of {cfg.host} cannot be had ({error}). Name another: --port.") from error
    with tempfile.TemporaryDirectory(prefix="serve-") as scratch:
        os.environ |= environment(cfg.ingress, Path(scratch))
        import ray  # only now: it reads the environment when it is loaded
        from ray import serve

        from serve.app import build_app

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        quiet = {"include_dashboard": False, "logging_level": logging.WARNING, "log_to_driver": False}
        ray.init(**{"_node_ip_address": "127.0.0.1", **quiet, **ray_options})
        try:
            check_room(cfg.settings, ray.cluster_resources().get("CPU", 0))
            serve.start(http_options={"host": cfg.host, "port": cfg.port, "request_timeout_s": None})
            try:
                serve.run(build_app(cfg.settings))
            except RuntimeError as error:
                raise ValueError(_why(serve.status()) or str(error)) from error
            yield f"http://{cfg.host}:{cfg.port}"
        finally:
            serve.shutdown()
            ray.shutdown()


def _why(status: Any) -> str:
    """What the replicas that did not come up said, the last line of each: Ray Serve itself only says that they did not.

    Args: status: of all applications, as Ray Serve has it.
    """
    told = [one.message for app in status.applications.values() for one in app.deployments.values() if one.message]
    last = dict.fromkeys(line for line in (_last(message) for message in told) if line)
    return " ".join(last)


def _last(message: str) -> str:
    """`ValueError: what was wrong` of a stack that is told in words, without the name of the error."""
    lines = [line.strip() for line in message.replace("\\n", "\n").splitlines()]
    found = [line.partition("Error: ")[2] for line in lines if re.match(r"[\w.]*Error: ", line)]
    return found[-1] if found else ""


def check_room(settings: ServeArgs, num_cpus: float) -> None:
    """What starts is what fits: Ray would wait for more of a machine that has no more.

    Raises: ValueError.
    """
    parts = settings.index_parts if settings.index_parts > 1 else 0
    wanted = settings.replica_cpus * (settings.min_replicas + parts)
    if wanted > num_cpus:
        raise ValueError(
            f"{settings.min_replicas} replicas and {parts} parts of the index, of {settings.replica_cpus:g} CPUs each, "
            f"are more than the {num_cpus:g} CPUs here. Give each less, for example --replica-cpus "
            f"{math.floor(100 * num_cpus / (settings.min_replicas + parts)) / 100:g}, or start fewer."
        )


def _said(error: ValueError) -> str:
    """In a line for each setting that is wrong."""
    if not isinstance(error, ValidationError):
        return str(error)
    wrong = ((".".join(str(part) for part in one["loc"]), one["msg"]) for one in error.errors())
    return "; ".join(f"--{name.replace('_', '-')}: {said}" if name else said for name, said in wrong)


if __name__ == "__main__":
    try:
        main(tyro.cli(ServeConfig, prog="python -m serve", description=__doc__, config=(tyro.conf.OmitArgPrefixes,)))
    except ValueError as error:
        sys.stderr.write(f"\nserve: {_said(error)}\n")
        raise SystemExit(2) from None
