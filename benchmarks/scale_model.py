"""What a collection of any size costs: hours, nodes, bytes, money, and which part breaks first.

The road of `pipeline faces` as a list of steps, whose unit costs are in scale_costs.toml, as scale_costs.py reads them.
scale_measure.py measures them; scale_check.py runs other sizes and prints both; scale_plan.py prints tables.

Steps that divide into parts are played out part by part (`play`). A closed formula does as well while parts are many
more than workers, but not where they are few, or workers wait for the driver or for the storage.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
import random
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from benchmarks.scale_costs import JOBS, Collection, Costs, Step, worth

_MEASURED_ON = 2  # workers
_PLAYED = 10_000  # parts that are played out; those before them are whole rounds, all alike
GB = 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A kind of machine."""

    name: str = "c5.4xlarge"
    cores: int = 16
    memory: float = 32e9
    """Bytes."""
    price: float = 0.68
    """US dollars an hour."""
    bandwidth: float = 0.6e9
    """Bytes a second to the storage. Not measured."""
    start: float = 120.0
    """Seconds until it works. Not measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """An object store."""

    month: float = 0.023
    """US dollars a GB and month."""
    put: float = 5e-6
    """US dollars a file written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Of a step: on how many nodes, how long, what it takes."""

    step: Step
    nodes: int
    hours: float
    node_hours: float
    stored: float
    held: float


@dataclass(frozen=True, slots=True)
class Break:
    """The fewest photos at which a step breaks, and by what."""

    photos: int
    step: str
    what: str
    instead: str


def play(
    parts: int,
    seconds: float,
    workers: int,
    *,
    start: float = 0,
    dispatch: float = 0,
    transfer: float = 0,
) -> float:
    """Seconds until all parts are done.

    A driver hands them out one after another, each to the worker that is free first. They take one time in the mean,
    from half to one and a half of it. What they read and write passes through one storage.

    Args:
        seconds: of a part. start: seconds until workers work. dispatch: the driver's seconds for a part.
        transfer: seconds that a part's bytes take the storage when it serves nothing else.
    """
    workers = min(workers, parts)
    round_ = max(seconds, workers * dispatch, workers * transfer)  # of which each worker does a part
    skipped = max(0, parts - max(_PLAYED, 2 * workers)) // workers
    draw, free = random.Random(0), [start + skipped * round_] * workers
    driver = storage = free[0]
    ended = 0.0
    for _ in range(parts - skipped * workers):
        begins = max(heapq.heappop(free), driver)
        driver = begins + dispatch
        storage = max(storage, begins) + transfer
        ends = max(begins + seconds * draw.uniform(0.5, 1.5), storage)
        ended = max(ended, ends)
        heapq.heappush(free, ends)
    return ended


def in_parts(
    step: Step, of: Collection, workers: int, *, start: float = 0, dispatch: float = 0, transfer: float = 0
) -> float:
    """Seconds of a step that divides, see `play`. What a run costs was measured of a few workers that start: each
    takes its share of that."""
    begins, parts = step.seconds.get("run", 0.0), step.tasks(of)
    how = {"start": start + begins / _MEASURED_ON, "dispatch": dispatch, "transfer": transfer}
    return play(parts, (step.work(of) - begins) / parts, workers, **how)


def outcome(step: Step, of: Collection, node: Node, nodes: int, dispatch: float, moved: float) -> Outcome:
    """A step on so many nodes. Args: moved: bytes of a photo that pass between a node and the storage."""
    work, stored, held = step.work(of), worth(step.stored, of), worth(step.held, of)
    if step.place != "nodes":
        seconds = node.start + work / (node.cores if step.place == "node" else 1)
        return Outcome(step=step, nodes=1, hours=seconds / 3600, node_hours=seconds / 3600, stored=stored, held=held)
    transfer = moved * of.photos / step.tasks(of) / (node.bandwidth * nodes)
    hours = in_parts(step, of, nodes * node.cores, start=node.start, dispatch=dispatch, transfer=transfer) / 3600
    return Outcome(step=step, nodes=nodes, hours=hours, node_hours=nodes * hours, stored=stored, held=held)


def nodes_for(costs: Costs, of: Collection, node: Node, hours: float, without: Container[str] = ()) -> int:
    """The fewest nodes whose cores do all that divides in so many hours. Args: without: steps that are not done."""
    work = sum(step.work(of) for step in steps_of(costs) if step.place == "nodes" and step.name not in without)
    return max(1, math.ceil(work / 3600 / hours / node.cores))


def road(
    costs: Costs, of: Collection, node: Node, hours: float, source: float, without: Container[str] = ()
) -> list[Outcome]:
    """All steps but some, in order. Args: source: bytes of a source photo, which ingest reads."""
    nodes, made = nodes_for(costs, of, node, hours, without), []
    for step in steps_of(costs):
        moved = (worth(step.stored, of) + worth(step.read, of)) / of.photos + (source if step.name == "ingest" else 0)
        if step.work(of) and step.name not in without:
            made.append(outcome(step, of, node, nodes, costs.dispatch, moved))
    return made


def steps_of(costs: Costs) -> list[Step]:
    """Those of the road, in order."""
    return [costs.steps[name] for job in JOBS.values() for name in job]


def breaks(costs: Costs, like: Collection, node: Node, hours: float) -> list[Break]:
    """Where each step breaks, the first first: a node has not the memory, or what does not divide takes longer than
    `hours`. Steps that no billion of billions breaks are left out."""
    found = []
    for step in costs.steps.values():
        limits = {f"{node.memory / GB:.0f} GB of memory": (lambda of, step=step: worth(step.held, of) > node.memory)}
        if step.place != "nodes":
            cores = node.cores if step.place == "node" else 1
            limits[f"{hours:.0f} hours"] = lambda of, step=step, cores=cores: step.work(of) > 3600 * hours * cores
        for what, broken in limits.items():
            if (photos := _first(broken, like)) is not None:
                found.append(Break(photos, step.name, what, step.instead))
    return sorted(found, key=lambda one: one.photos)


def at(like: Collection, photos: int) -> Collection:
    """The same with so many photos; lists grow with them, if there are any."""
    lists = lists_for(photos) if like.lists else 0
    return dataclasses.replace(like, photos=photos, lists=lists)


def lists_for(photos: int) -> int:
    """Four times the root: what FAISS's authors advise."""
    return max(1, round(4 * math.sqrt(photos)))


def _first(broken: Any, like: Collection, most: int = 10**12) -> int | None:
    """The fewest photos for which it is so, which it then is for more."""
    if not broken(at(like, most)):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if broken(at(like, middle)) else (middle, high)
    return high
