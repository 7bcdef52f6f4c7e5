"""The model beside the real jobs, at sizes that its costs were not fitted on.

    OMP_NUM_THREADS=1 python benchmarks/scale_check.py --folder W

A row for each job or step at each size: processor seconds and bytes that scale_model.py predicts of scale_costs.toml,
those that were measured, and measured over predicted; seconds on the clock, predicted for this machine's two cores,
which count only where nobody else uses them; and memory that is asked for, and that the largest process had.

Predictions are those of the file times the machine's pace: what one piece of work takes now over what it took when
costs were measured, since who shares the caches slows all work alike. At the end each size as a whole. Well is: 0.85 to
1.15. About 6 minutes.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import scale_runs
from benchmarks.scale_costs import COSTS, JOBS, Collection, Costs, read_costs, worth
from benchmarks.scale_meter import Cost, pace
from benchmarks.scale_model import in_parts
from benchmarks.scale_runs import ASKED, LISTS, QUERIES

STEPS = {
    **JOBS,
    "build_index": ("rows", "index"),
    "build_index, few lists": JOBS["build_index"],
    "build_index, many lists": JOBS["build_index"],
    **dict.fromkeys(ASKED, JOBS["evaluate"]),
    "group": ("link", "merge"),
    **{name: (name,) for name in ("plan", "catalogue", "rows", "merge", "copies", "map")},
    "queries": ("query",),
}
"""What is measured -> the model's steps that it is made of."""
LISTED = {"build_index, few lists": LISTS[0], "build_index, many lists": LISTS[1]}
_ALLOWED = 0.15


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What is run."""

    folder: str
    """For drawn photos and all that is made of them; new or empty."""
    ingest: tuple[int, ...] = (1_600, 2_560, 5_120)
    """Sizes of the road of ingest."""
    photos: tuple[int, ...] = (512, 640, 896)
    """Of the road of photos, as many."""
    tables: tuple[int, ...] = (60_000, 100_000, 160_000)
    """Of the road of tables, as many."""
    pairs: tuple[int, ...] = (5_000, 7_000, 12_000)
    """Of the road of pairs, as many."""
    costs: str = str(COSTS)
    """The file of unit costs."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Predicted and measured."""

    predicted: float
    measured: float

    @property
    def ratio(self) -> float:
        return self.measured / self.predicted if self.predicted else float("nan")

    def __add__(self, other: Pair) -> Pair:
        return Pair(self.predicted + other.predicted, self.measured + other.measured)


def predicted(costs: Costs, name: str, of: Collection) -> tuple[float, float, float]:
    """Of what is measured under a name: processor seconds, seconds on two cores, bytes."""
    times = QUERIES if name == "queries" else 1
    processor = wall = stored = 0.0
    for step in (costs.steps[step] for step in STEPS[name]):
        work = times * step.work(of)
        processor += work
        stored += worth(step.stored, of)
        if step.place == "nodes":
            wall += in_parts(step, of, 2, dispatch=costs.dispatch)
        else:
            wall += work
    return processor, wall, stored


def compared(costs: Costs, name: str, of: Collection, cost: Cost, slower: float) -> tuple[Pair, Pair, Pair]:
    """Processor, clock and bytes. Args: slower: times the processor time that work takes now."""
    processor, wall, stored = predicted(costs, name, of)
    return Pair(slower * processor, cost.processor), Pair(slower * wall, cost.wall), Pair(stored, float(cost.stored))


def show(costs: Costs, road: str, num: int, done: Mapping[str, Cost], slower: float) -> tuple[Pair, Pair]:
    """Print the rows of one road at one size. Returns the whole of it, processor and clock."""
    whole = (Pair(0, 0), Pair(0, 0))
    print(f"{num:>9,} {road:<21}{'processor s':>22}{'':>7}{'clock s':>18}{'':>7}{'MB held':>16}{'MB left':>19}")
    for name, cost in done.items():
        of = Collection(photos=num, lists=LISTED.get(name, 0), asked=ASKED.get(name, 0))
        processor, wall, stored = compared(costs, name, of, cost, slower)
        asked = max(worth(step.held, of) for step in (costs.steps[step] for step in STEPS[name]))
        told = f"{asked / 1e6:9.0f}" if asked else f"{'':>9}"
        told += f"{cost.held / 1e6:7.0f}"
        told += f"{stored.predicted / 1e6:9.1f} {stored.measured / 1e6:8.1f} {stored.ratio:6.2f}" if cost.stored else ""
        print(
            f"  {name:<30}{processor.predicted:9.2f} {processor.measured:8.2f} {processor.ratio:6.2f}"
            f"{wall.predicted:10.1f} {wall.measured:8.1f} {wall.ratio:6.2f} {told}"
        )
        whole = (whole[0] + processor, whole[1] + wall)
    sys.stdout.flush()
    return whole


def main(cfg: Config) -> dict[str, float]:
    """Run all sizes, print, return measured over predicted processor time of each size."""
    sizes = {name: getattr(cfg, name) for name in scale_runs.ROADS}
    if len({len(of) for of in sizes.values()}) > 1:
        raise SystemExit(f"Sizes are {sizes}, expected as many of each.")
    logging.disable(logging.INFO)
    costs, root = read_costs(Path(cfg.costs)), Path(cfg.folder)
    root.mkdir(parents=True, exist_ok=True)
    scale_runs.draw(root / "drawn", max(cfg.photos))
    model = scale_runs.make_model(root / "model")
    ratios, lines, before, started = dict[str, float](), list[str](), pace(model), time.perf_counter()
    for each in zip(*sizes.values(), strict=True):
        of = dict(zip(sizes, each, strict=True))
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):  # jobs' own words
            done = {road: scale_runs.one(road, root, model, num) for road, num in of.items()}
        after = pace(model)
        slower, before = (before + after) / 2 / costs.pace, after
        print(f"\nthe machine takes {slower:.2f} times the processor time that it took when costs were measured")
        wholes = {f"{num:,} {road}": show(costs, road, num, done[road], slower) for road, num in of.items()}
        for name, (processor, wall) in [*wholes.items(), ("all", _all(list(wholes.values())))]:
            ratios[f"{name} at {each[0]:,}" if name == "all" else name] = processor.ratio
            lines.append(
                f"{name:<20}{processor.predicted:10.1f}{processor.measured:10.1f}{processor.ratio:8.2f}"
                f"{wall.predicted:12.1f}{wall.measured:10.1f}{wall.ratio:8.2f}"
            )
    print(f"\n{'whole':<20}{'processor s: predicted, measured':>28}{'clock s: predicted, measured':>30}")
    print("\n".join(lines))
    away = [name for name, ratio in ratios.items() if abs(ratio - 1) > _ALLOWED]
    print(f"more than {_ALLOWED:.0%} away: {', '.join(away) or 'none'}; took {time.perf_counter() - started:.0f} s")
    return ratios


def _all(wholes: Sequence[tuple[Pair, Pair]]) -> tuple[Pair, Pair]:
    return sum((one[0] for one in wholes), Pair(0, 0)), sum((one[1] for one in wholes), Pair(0, 0))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
