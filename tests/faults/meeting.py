"""A cluster of nodes of one core, and workers that wait for each other, so that each node does some of the work."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ray_jobs import build_index, embed
from ray_jobs.embed import EmbedPart
from retrieval.search import shards

_WAIT = 120.0  # seconds, for the slowest worker


@contextlib.contextmanager
def nodes() -> Iterator[Any]:
    """A cluster of one node of one core, to which others can be added; this process is its driver."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=one_core())
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def one_core(**environment: str) -> dict[str, Any]:
    """What makes a node of one core, told so much by its environment."""
    return {
        "num_cpus": 1,
        "include_dashboard": False,
        "dashboard_agent_listen_port": None,  # any that is free
        "object_store_memory": 2**27,
        "env_vars": environment,
    }


def remove(cluster: Any, node: Any) -> None:
    """And wait until all know that it is gone."""
    import ray

    left = sum(one["Alive"] for one in ray.nodes()) - 1
    cluster.remove_node(node)
    until = time.monotonic() + _WAIT
    while sum(one["Alive"] for one in ray.nodes()) > left and time.monotonic() < until:
        time.sleep(0.5)


def meet(where: str, others: int) -> None:
    """Wait in each of so many nodes until all are there."""
    import ray

    (Path(where) / ray.get_runtime_context().get_node_id()).touch()
    until = time.monotonic() + _WAIT
    while len(list(Path(where).iterdir())) < others:
        if time.monotonic() > until:
            raise RuntimeError(f"only {len(list(Path(where).iterdir()))} of {others} nodes came")
        time.sleep(0.05)


class Meets(EmbedPart):
    """An actor that begins when there is one on each node."""

    def __init__(self, where: str, others: int, **fixed: Any) -> None:
        super().__init__(**fixed)
        meet(where, others)


def meets(where: str, others: int, **work: Any) -> dict[str, Any]:
    """A shard that is begun when there is a task on each node."""
    meet(where, others)
    return shards.write_shard(**work)


@contextlib.contextmanager
def together(root: Path, others: int) -> Iterator[None]:
    """Parts of embed and of build_index are done by workers that meet first. Says on how many nodes they were."""
    meetings: list[Path] = []

    def run_parts(name: str, parts: Sequence[int], work: Any, *, fixed: dict[str, Any], **told: Any) -> Any:
        meetings.append(Path(tempfile.mkdtemp(dir=root)))
        fixed = {**fixed, "where": str(meetings[-1]), "others": others}
        return original(name, parts, Meets if isinstance(work, type) else meets, fixed=fixed, **told)

    original = embed.run_parts
    embed.run_parts = build_index.run_parts = run_parts  # type: ignore[assignment]
    try:
        yield
    finally:
        embed.run_parts = build_index.run_parts = original
    met = {len(list(meeting.iterdir())) for meeting in meetings}
    if met != {others}:
        raise SystemExit(f"{others} nodes were to work, and {met} did")
