"""What work needs of a machine, said in one place by each job; and waiting for one where the cluster can get it."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

GB = 1 << 30
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

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus:g} CPU{gpus}" + (f" and {self.memory / GB:.1f} GB of memory" if self.memory else "")

    def fit(self, resources: dict[str, float]) -> int:
        """How many workers fit into these resources, all on one machine."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory)}
        return int(min((resources.get(name, 0.0) // much for name, much in asked.items() if much), default=1 << 20))


def slots(needs: Needs) -> int:
    """How many such workers the machines that are there now can hold."""
    import ray

    return sum(needs.fit(node["Resources"]) for node in ray.nodes() if node["Alive"])


def can_grow() -> bool:
    """Whether an autoscaler may be asked: on a cluster that RAY_ADDRESS names, as `ray job submit` sets it. The Ray
    that a job starts for itself has the machine that it runs on, and no other."""
    return bool(os.environ.get("RAY_ADDRESS"))


def wait_for(needs: Needs, what: str, seconds: float, workers: int = 1) -> None:
    """Until the cluster has room for `workers` such workers, which the autoscaler is asked for. Waiting is said.

    The request is taken back once they are there, or given up: it would hold the machines for ever, and work that is
    under way holds them itself.

    Args: what: the step that waits, for the log. seconds: how long at most.

    Raises: ValueError if it can have none, or has none after so long, with advice.
    """
    if (room := slots(needs)) >= workers:
        return
    device = "use --device cpu, or " if needs.gpus else ""
    if not can_grow():
        raise ValueError(
            f"{what} needs {workers} x {needs}, and this machine has room for {room}: {device}ask for less, or submit "
            f"the job to a cluster (docs/how-to/run/cluster.md)."
        )
    started = said = time.monotonic()
    logger.info("%s: waiting for %d x %s; the autoscaler was asked", what, workers, needs)
    _ask(needs, workers)
    try:
        while (room := slots(needs)) < workers:
            now = time.monotonic()
            if now - started >= seconds:
                raise ValueError(
                    f"{what} waited {seconds:g} s for {workers} x {needs}, and the cluster has room for {room}. `ray "
                    f"status` says why: no type of node that has it, quotas, or none to be had. To go on, {device}add "
                    f"such a type (cluster.yaml), or wait longer: --wait-seconds; the same command goes on from here."
                )
            if now - said > _SAY_EVERY:
                said = now
                logger.info("%s: still waiting for %d x %s, %.0f s so far", what, workers, needs, now - started)
            time.sleep(_LOOK_EVERY)
        logger.info("%s: there is room after %.0f s", what, time.monotonic() - started)
    finally:
        _ask(needs, 0)


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


def _ask(needs: Needs, workers: int) -> None:
    """One request holds for the whole cluster: the last one counts, and one of nothing takes it back."""
    from ray.autoscaler.sdk import request_resources

    bundle = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": needs.memory}
    request_resources(bundles=[{name: much for name, much in bundle.items() if much}] * workers)
