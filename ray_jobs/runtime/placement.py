"""What work needs of a machine, said in one place by each job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GB = 1 << 30


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

    def fit(self, resources: dict[str, float]) -> int:
        """How many workers fit into these resources, all on one machine."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory)}
        return int(min((resources.get(name, 0.0) // much for name, much in asked.items() if much), default=1 << 20))


def slots(needs: Needs) -> int:
    """How many such workers the machines that are there now can hold."""
    import ray

    return sum(needs.fit(node["Resources"]) for node in ray.nodes() if node["Alive"])
