"""What work needs of a machine, said in one place by each job; and waiting for one where the cluster can get it."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

GB = 1 << 30
_PROCESS = GB // 2  # the interpreter, Ray, and libraries as a task of ours loads them
_LOOK_EVERY, _SAY_EVERY = 1.0, 30.0  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What Ray sets aside for one worker. cpus, gpus: cores and devices. memory: bytes, at the worst of times, so that
    no more workers meet on a machine than it has memory for."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0

    def options(self) -> dict[str, Any]:
        """As `ray.remote` takes them."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus} | ({"memory": self.memory} if self.memory else {})

    def bundle(self) -> dict[str, float]:
        """As a group of places (`ray.util.placement_group`) takes them."""
        much = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        return {name: float(number) for name, number in much.items() if number}

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus:g} CPU{gpus}" + (f" and {self.memory / GB:.1f} GB of memory" if self.memory else "")

    def fit(self, resources: dict[str, float]) -> int:
        """How many workers fit into these resources, all on one machine."""
        asked = self.bundle().items()
        return int(min((resources.get(name, 0.0) // much for name, much in asked), default=1 << 20))


def holding(each: float, items: int = 1) -> Needs:
    """Of a task that holds, at its worst, so many bytes of each item, beside what a process of ours takes."""
    return Needs(memory=_PROCESS + int(each * items))


def slots(needs: Needs) -> int:
    """How many such workers the machines that are there now can hold."""
    import ray

    return sum(needs.fit(node["Resources"]) for node in ray.nodes() if node["Alive"])


def can_grow() -> bool:
    """Whether an autoscaler may be asked: on a cluster that RAY_ADDRESS names, as `ray job submit` sets it. The Ray
    that a job starts for itself has the machine that it runs on, and no other."""
    return bool(os.environ.get("RAY_ADDRESS"))


def wait_for(needs: Needs, what: str, seconds: float, workers: int = 1) -> Needs:
    """Until the cluster has room for `workers` such workers, which the autoscaler is asked for. Waiting is said.

    Memory is an estimate, so it is waited for and refuses nobody: where no machine has so much, a worker is given all
    of the largest, and so is alone there.

    Args: what: the step that waits, for the log. seconds: how long at most.

    Returns: what each worker is to be given.

    Raises: ValueError if it can have none, or has none after so long, with advice.
    """
    if slots(needs) >= workers or (can_grow() and _came(needs, what, seconds, workers)):
        return needs
    less = dataclasses.replace(needs, memory=min(needs.memory, _largest_memory()))
    if (room := slots(less)) >= workers:
        logger.warning("%s: no machine has %s; each worker is given %s, which may be too little", what, needs, less)
        return less
    device = "use --device cpu, or " if needs.gpus else ""
    if not can_grow():
        raise ValueError(
            f"{what} needs {workers} x {needs}, and this machine has room for {room}: {device}ask for less, or submit "
            f"the job to a cluster (docs/how-to/run/cluster.md)."
        )
    raise ValueError(
        f"{what} waited {seconds:g} s for {workers} x {needs}, and the cluster has room for {room}. `ray status` says "
        f"why: no type of node that has it, quotas, or none to be had. To go on, {device}add such a type "
        f"(cluster.yaml), or wait longer: --wait-seconds; the same command goes on from here."
    )


def _came(needs: Needs, what: str, seconds: float, workers: int) -> bool:
    """Whether there is room within so many seconds."""
    started = said = time.monotonic()
    logger.info("%s: waiting for %d x %s; the autoscaler was asked", what, workers, needs)
    with _asked_for(needs, workers):
        while slots(needs) < workers:
            now = time.monotonic()
            if now - started >= seconds:
                return False
            if now - said > _SAY_EVERY:
                said = now
                logger.info("%s: still waiting for %d x %s, %.0f s so far", what, workers, needs, now - started)
            time.sleep(_LOOK_EVERY)
    logger.info("%s: there is room after %.0f s", what, time.monotonic() - started)
    return True


@contextmanager
def _asked_for(needs: Needs, workers: int) -> Iterator[None]:
    """Demand that the autoscaler sees while the block lasts: a group of places that nobody takes.

    Unlike `request_resources`, of which a cluster keeps the last one alone, it adds to what other jobs wait for, and
    ends with this process however that ends: no machine is held for a job that was killed.
    """
    from ray.util import placement_group, remove_placement_group

    places = placement_group([needs.bundle()] * workers, strategy="PACK")
    try:
        yield
    finally:
        remove_placement_group(places)


def _largest_memory() -> int:
    """Bytes that the largest machine has for workers, of those that are there now."""
    import ray

    return int(max((node["Resources"].get("memory", 0.0) for node in ray.nodes() if node["Alive"]), default=0))


def largest_cores() -> int:
    """Cores that the largest machine has for workers, of those that are there now; at least 1."""
    import ray

    return max(1, int(max((node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]), default=1)))


def uses_gpu(device: str) -> bool:
    """Whether a job with this --device goes to GPUs: cuda to those that are there or can be asked for, auto to those
    that are there.

    Raises: ValueError for cuda where there is none and none can be asked for.
    """
    import ray

    if device == "cpu":
        return False
    if ray.cluster_resources().get("GPU", 0) >= 1:
        return True
    if device != "cuda":
        if can_grow():
            logger.info("no GPU is there now, so CPUs are used; --device cuda waits for one")
        return False
    if not can_grow():
        raise ValueError(
            "--device cuda, and there is no GPU here. Use --device cpu or auto, or submit the job to a cluster that "
            "has GPUs or can start machines with some (docs/how-to/run/cluster.md)."
        )
    return True


def all_have_bfloat16(*, gpu: bool) -> bool:
    """Whether every machine that is there and may be given such work multiplies bfloat16 itself: its GPUs, or its
    processor. A format that only some of them have is no format for work that must come out alike on all."""
    import ray

    from ray_jobs.runtime.places import ask_nodes

    holds = "GPU" if gpu else "CPU"
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get(holds, 0) > 0]
    # A process of its own, which ends: one that looked at a GPU holds some of its memory.
    alone = {"max_calls": 1, "runtime_env": {"env_vars": {"RETRIEVAL_LOOKS_AT": "gpu"}}} if gpu else {}
    names = {node["NodeID"]: node["NodeManagerHostname"] for node in nodes}
    return all(ask_nodes(names, _has_bfloat16, gpu, **alone).values())


def _has_bfloat16(gpu: bool) -> bool:
    from retrieval.models.engines.choice import has_bfloat16

    if gpu:  # hidden from who asked for none
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    return has_bfloat16(gpu=gpu)
