"""Unit costs: the file of them, read and written, and what they are costs of.

A step's work is a sum of unit costs, each times an amount that follows from the collection: a run, a part, a photo, a
megapixel, a pair of photos. scale_measure.py measures them.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COSTS = Path(__file__).with_name("scale_costs.toml")
TERMS = ("run", "part", "photo", "megapixel", "query", "pair", "visit", "sample", "assigned", "trained")
"""What a unit cost may be of; see `Collection.amounts`."""
KINDS = ("seconds", "stored", "read", "held")
PLACES = ("core", "node", "nodes")
"""Where a step runs: on one core, on all cores of one node, in parts on all nodes."""
JOBS = {
    "ingest": ("plan", "ingest", "catalogue"),
    "embed": ("embed",),
    "build_index": ("rows", "train", "index"),
    "evaluate": ("score", "evaluate"),
    "group": ("link", "merge", "copies"),
}
"""The jobs, in order, and the steps of each."""
_SHARD = 500_000  # photos of a shard of an index, as `build_index` cuts it
_TRAINED_ON, _LEAST_ON, _ROUNDS = 256, 39, 10  # vectors that a list is trained on, and how often k-means reads them


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """So many photos, and how they are worked on."""

    photos: int
    part: int = 256
    """Photos of a part."""
    megapixels: float = 0.04
    """Of a source photo; the drawn ones have 178 x 218 pixels."""
    lists: int = 0
    """Of an inverted file; 0: the index is exact."""
    nprobe: int = 16
    """Lists that a search visits."""
    dim: int = 128
    asked: int = 0
    """Photos that an evaluation asks with: evaluate --max-queries; 0: all."""

    def __post_init__(self) -> None:
        if self.photos < 1 or self.part < 1 or self.lists < 0 or self.nprobe < 1:
            raise ValueError(
                f"photos is {self.photos}, part {self.part}, lists {self.lists} and nprobe {self.nprobe}, expected 1 "
                f"or more, and of lists 0 or more."
            )

    @property
    def amounts(self) -> dict[str, float]:
        """Term -> how many of it. query: photos that an evaluation asks with; pair: those times all. visit: vectors
        that the searches of all photos look at. sample: vectors that lists are trained on; trained: those times lists,
        each round; assigned: all vectors times lists."""
        num = self.photos
        asked = min(num, self.asked or num)
        most = max(_LEAST_ON * self.lists, (4 << 30) // (4 * self.dim))
        sample = min(num, max(1 << 16, _TRAINED_ON * self.lists), most)
        seen = min(1.0, self.nprobe / self.lists) if self.lists else 1.0
        return {
            "run": 1,
            "part": math.ceil(num / self.part),
            "photo": num,
            "megapixel": num * self.megapixels,
            "query": asked,
            "pair": asked * num,
            "visit": num * (num * seen + self.lists),
            "sample": sample if self.lists else 0,
            "assigned": num * self.lists,
            "trained": _ROUNDS * sample * self.lists,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A step's unit costs by term: processor seconds, bytes left on storage, bytes read from it (not of a source),
    bytes that one process (of a step on nodes: all of one node) asks for."""

    name: str
    place: str
    command: str
    seconds: Mapping[str, float]
    stored: Mapping[str, float]
    read: Mapping[str, float]
    held: Mapping[str, float]
    instead: str
    """What to set against it where it breaks."""

    def work(self, of: Collection) -> float:
        """Processor seconds."""
        return worth(self.seconds, of)

    def tasks(self, of: Collection) -> int:
        """What it divides into."""
        return math.ceil(of.photos / (_SHARD if self.name == "index" else of.part)) if self.place == "nodes" else 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """What scale_costs.toml says."""

    machine: str
    measured: str
    dispatch: float
    """Seconds of the driver for a part."""
    pace: float
    """Processor seconds of `scale_meter.pace` when that was so."""
    steps: Mapping[str, Step]

    def job(self, name: str, of: Collection) -> float:
        """Processor seconds of a job."""
        return sum(self.steps[step].work(of) for step in JOBS[name] if step in self.steps)


def worth(costs: Mapping[str, float], of: Collection) -> float:
    """Costs by term, of a collection."""
    amounts = of.amounts
    return sum(cost * amounts[term] for term, cost in costs.items())


def read_costs(path: Path = COSTS) -> Costs:
    """Raises: ValueError for a file that is not there or does not say all that it must."""
    try:
        told = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"There is no {path}. Write one: python benchmarks/scale_measure.py --out {path}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}. Write it anew: python benchmarks/scale_measure.py") from error
    try:
        steps = {name: _step(name, of) for name, of in told["steps"].items()}
        costs = Costs(**{name: told[name] for name in ("machine", "measured", "dispatch", "pace")}, steps=steps)
    except KeyError as error:
        raise ValueError(f"{path} has no {error}. Write it anew: python benchmarks/scale_measure.py") from error
    if missing := {step for job in JOBS.values() for step in job} - set(steps):
        raise ValueError(f"{path} has no step {', '.join(sorted(missing))}, of {', '.join(sorted(steps))}.")
    return costs


def _step(name: str, told: Mapping[str, Any]) -> Step:
    """Raises: ValueError for an unknown place or term, or a cost that is no number of 0 or more."""
    if told["place"] not in PLACES:
        raise ValueError(f"Step {name} runs on '{told['place']}', expected one of {', '.join(PLACES)}.")
    costs = {kind: dict(told.get(kind, {})) for kind in KINDS}
    for kind, of in costs.items():
        for term, cost in of.items():
            if term not in TERMS:
                raise ValueError(f"Step {name} has {kind} of a '{term}', expected one of {', '.join(TERMS)}.")
            if not isinstance(cost, int | float) or not 0 <= cost < math.inf:
                raise ValueError(f"Step {name}, {kind} of a {term}: {cost!r}, expected a number of 0 or more.")
    return Step(name=name, place=told["place"], command=told["command"], instead=told.get("instead", ""), **costs)


# ---- writing it ----

ME = "python benchmarks/scale_measure.py --folder W"
ELSEWHERE = {"driver": "python benchmarks/bench_cluster.py", "reconstruct": "python benchmarks/reconstruct_growth.py"}


WHERE = {
    "core": ("plan", "catalogue", "rows", "score", "merge", "map", "driver", "query"),
    "node": ("train",),
    "nodes": ("ingest", "embed", "index", "evaluate", "link", "copies", "service", "reconstruct"),
}
INSTEAD = {
    "plan": "one core makes the list of a source: several collections",
    "catalogue": "larger parts, --part-size 2048; one core divides a collection: several collections",
    "rows": "one core sorts the rows of an index: several indexes",
    "score": "fewer that ask: --max-queries; one node with more memory, 150 B a photo",
    "evaluate": "fewer that ask: --max-queries",
    "link": "an inverted file, in codes: --index.factory IVF4096,RaBitQfs,RFlat; nodes with more memory",
    "merge": "one node with more memory; several collections",
    "service": "python -m serve --index-parts, or codes: --index.factory IVF4096,RaBitQfs,RFlat",
    "driver": "larger parts, --part-size 2048",
    "map": "one core of each node of the service, once a version",
    "train": "fewer lists; a GPU trains 30 times as fast",
    "query": "an inverted file; --index-parts",
    "reconstruct": "one node with more memory, where pairs are joined; several collections",
}


def as_toml(file: Mapping[str, Any]) -> str:
    """The file of costs."""
    lines = [f"# Written by {ME}", *(f'{name} = "{file[name]}"' for name in ("machine", "measured"))]
    lines += [f"{name} = {file[name]:.4g}" for name in ("dispatch", "pace", "book")]
    for name, costs in file["steps"].items():
        place = next(place for place, names in WHERE.items() if name in names)
        lines += ["", f"[steps.{name}]", f'place = "{place}"', f'command = "{ELSEWHERE.get(name, ME)}"']
        lines += [f'instead = "{INSTEAD[name]}"'] if name in INSTEAD else []
        for kind in KINDS:
            of = ", ".join(f"{term} = {cost:.4g}" for term, cost in costs.get(kind, {}).items())
            lines += [f"{kind} = {{ {of} }}"] if of else []
    return "\n".join(lines) + "\n"
