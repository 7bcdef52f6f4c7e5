"""Unit costs of every step, measured here, as scale_model.py reads them.

    OMP_NUM_THREADS=1 python benchmarks/scale_measure.py --folder W
    OMP_NUM_THREADS=1 python benchmarks/scale_measure.py --folder W --again    # the fit alone, of runs that lie there

The roads of scale_runs.py at a few small sizes, and some once more with parts of another size; costs of 0 or more are
fitted to what they took, by least squares of what is missed in proportion. About 8 minutes on two idle cores.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import dataclasses
import json
import platform
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import scale_runs
from benchmarks.scale_costs import COSTS, Collection, as_toml, worth
from benchmarks.scale_meter import Cost, apart, cluster, pace
from benchmarks.scale_runs import ASKED, LISTS, PART, QUERIES

RUNS = "runs.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What is run."""

    folder: str
    """For drawn photos and all that is made of them; new or empty."""
    ingest: tuple[int, ...] = (1_000, 4_000)
    """Sizes of the road of ingest."""
    photos: tuple[int, ...] = (384, 1024)
    """Of the road of photos."""
    tables: tuple[int, ...] = (40_000, 120_000)
    """Of the road of tables."""
    pairs: tuple[int, ...] = (4_000, 8_000, 16_000)
    """Of the road of pairs."""
    other_parts: tuple[int, int] = (32, 2048)
    """Photos of a part, with which the smallest of ingest and photos, and of tables, are run once more."""
    roads: tuple[str, ...] = tuple(scale_runs.ROADS)
    """Which are run. Runs that lie in the folder are kept, and of those alike the least is taken."""
    out: str = str(COSTS)
    """The file to write."""
    again: bool = False
    """Fit what lies in the folder."""
    memory_only: bool = False
    """Write anew what jobs ask for, which needs no run; all else stays as the file has it."""


@dataclass(frozen=True, slots=True)
class Run:
    """One road at one size."""

    road: str
    photos: int
    part: int
    costs: dict[str, Cost]
    pace: float

    def of(self, lists: int = 0, asked: int = 0) -> Collection:
        return Collection(photos=self.photos, part=self.part, lists=lists, asked=asked)


def main(cfg: Config) -> None:
    """Run, keep what was measured, fit, write."""
    root = Path(cfg.folder)
    root.mkdir(parents=True, exist_ok=True)
    file = tomllib.loads(Path(cfg.out).read_text()) if cfg.memory_only else measured(root, cfg)
    steps = file["steps"]
    for name, held in asked_for(root, steps["index"]["stored"]["photo"], file["book"]).items():
        steps.setdefault(name, {})["held"] = held
    Path(cfg.out).write_text(as_toml(file))
    print(f"wrote {cfg.out}")


def measured(root: Path, cfg: Config) -> dict[str, Any]:
    """What the file says, but for memory."""
    kept = json.loads((root / RUNS).read_text()) if (root / RUNS).exists() else {"runs": [], "alone": None}
    if not cfg.again:
        runs = kept["runs"] + run_all(root, cfg)
        alone = kept["alone"] or {
            "dispatch": dispatch(root),
            "megapixel": scale_runs.seconds_a_megapixel(3000),
            "book": book(root),
        }
        (root / RUNS).write_text(json.dumps({"runs": runs, "alone": alone}, indent=1))
    told = json.loads((root / RUNS).read_text())
    least, alone = min(run["pace"] for run in told["runs"]), told["alone"]
    steps: dict[str, Any] = fitted(least_of([at_pace(run, least) for run in told["runs"]]), alone)
    steps["driver"] = {"seconds": {"part": len(IN_PARTS) * alone["dispatch"]}}
    steps["reconstruct"] = {"seconds": RECONSTRUCT}
    when = {"machine": machine(), "measured": f"{datetime.now(UTC):%Y-%m-%d}"}
    return {**when, "dispatch": alone["dispatch"], "pace": least, "book": alone["book"]["held"], "steps": steps}


def run_all(root: Path, cfg: Config) -> list[dict[str, Any]]:
    scale_runs.draw(root / "drawn", max(cfg.photos))
    model = scale_runs.make_model(root / "model")
    runs, before = list[dict[str, Any]](), pace(model)
    for road in cfg.roads:
        of: tuple[int, ...] = getattr(cfg, road)
        other = [(of[0], cfg.other_parts[road == "tables"])] if road != "pairs" else []
        for num, part in [*((size, PART) for size in of), *other]:
            costs, after = scale_runs.one(road, root, model, num, part), pace(model)
            runs.append(dataclasses.asdict(Run(road, num, part, costs, (before + after) / 2)))
            before = after
            print(f"{road} {num} in parts of {part}, pace {runs[-1]['pace']:.2f}", flush=True)
            for name, cost in costs.items():
                print(f"  {name:24} {cost.processor:8.1f} processor s {cost.wall:8.1f} s", flush=True)
    return runs


def at_pace(told: Mapping[str, Any], wanted: float) -> Run:
    """A run as it would have been at this pace."""
    slower = told["pace"] / wanted
    costs = {name: Cost(**cost | {"processor": cost["processor"] / slower}) for name, cost in told["costs"].items()}
    return Run(**{**told, "costs": costs})


def least_of(runs: Sequence[Run]) -> list[Run]:
    """Of runs of the same the least that each job took: what others do on the machine only adds."""
    found = dict[tuple[str, int, int], Run]()
    for run in runs:
        before = found.setdefault((run.road, run.photos, run.part), run)
        for name, cost in run.costs.items():
            before.costs[name] = min(before.costs.get(name, cost), cost, key=lambda one: one.processor)
    return list(found.values())


# ---- what is measured by itself ----


def dispatch(root: Path, parts: int = 2000) -> float:
    """Seconds of the driver for a part that has nothing to do."""
    from ray_jobs.runtime.parallel.parts import run_parts
    from ray_jobs.runtime.session import session

    with cluster(root), session():
        list(run_parts("warm", range(50), scale_runs.nothing))
        started = time.process_time()
        list(run_parts("nothing", range(parts), scale_runs.nothing))
        return (time.process_time() - started) / parts


def book(root: Path, parts: int = 50_000) -> dict[str, float]:
    """Of a manifest's part: bytes of the process that seals it, and seconds."""
    few, many = (apart(scale_runs.keep_books, root / f"books-{num}", num) for num in (1000, parts))
    num = parts - 1000
    return {"held": (many.held - few.held) / num, "seconds": (many.processor - few.processor) / num}


# ---- the fit ----


def fit(terms: Sequence[str], seen: Sequence[tuple[Collection, float]]) -> dict[str, float]:
    """Costs of 0 or more by term, whose relative errors have the least squares."""
    from scipy.optimize import nnls

    amounts = np.array([[of.amounts[term] for term in terms] for of, _ in seen])
    values = np.array([value for _, value in seen])
    scale = amounts.max(axis=0)
    found, _ = nnls(amounts / scale / values[:, None], np.ones(len(values)))
    return {term: float(f"{cost:.4g}") for term, cost in zip(terms, found / scale, strict=True) if cost}


def fitted(runs: Sequence[Run], alone: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Step -> seconds and stored -> term -> cost."""
    ingests, photos, tables, pairs = ([run for run in runs if run.road == road] for road in scale_runs.ROADS)

    def direct(of: Sequence[Run], name: str, *terms: str) -> dict[str, float]:
        return fit(terms, [(run.of(), run.costs[name].processor) for run in of])

    def rest(of: Sequence[Run], job: str, less: Sequence[Mapping[str, float]], *terms: str) -> dict[str, float]:
        left = [(run.of(), run.costs[job].processor - sum(worth(one, run.of()) for one in less)) for run in of]
        return fit(terms, [(collection, max(value, 1e-3)) for collection, value in left])

    def stored(of: Sequence[Run], job: str) -> dict[str, float]:
        return fit(("run", "part", "photo"), [(run.of(), float(run.costs[job].stored)) for run in of])

    plan, catalogue = (direct(tables, name, "run", "part", "photo") for name in ("plan", "catalogue"))
    in_order, mapped = (direct(tables, name, "run", "photo") for name in ("rows", "map"))
    merge = direct(pairs, "merge", "run", "photo")
    index = rest(tables, "build_index", [in_order], "run", "photo")
    few, many = (
        (run.costs[f"build_index, {name} lists"].processor, run.of(lists).amounts)
        for run in [max(tables, key=lambda run: run.photos)]
        for name, lists in zip(("few", "many"), LISTS, strict=True)
    )
    a_list = max(many[0] - few[0], 0.0) / sum(many[1][term] - few[1][term] for term in ("assigned", "trained"))
    ingest = rest(ingests, "ingest", [plan, catalogue], "run", "part", "photo")
    scored = fit(
        ("run", "query", "photo", "pair"),
        [(run.of(), run.costs["evaluate"].processor) for run in pairs]
        + [(run.of(asked=asked), run.costs[name].processor) for run in tables for name, asked in ASKED.items()],
    )
    query = fit(("run", "photo"), [(run.of(), run.costs["queries"].processor / QUERIES) for run in tables])
    return {
        "plan": {"seconds": plan},
        "ingest": {"seconds": ingest | {"megapixel": float(alone["megapixel"])}, "stored": stored(ingests, "ingest")},
        "catalogue": {"seconds": catalogue},
        "embed": {
            "seconds": direct(photos, "embed", "run", "part", "photo"),
            "stored": stored(photos, "embed"),
            "read": {"photo": stored(ingests, "ingest")["photo"]},
        },
        "rows": {"seconds": in_order},
        "train": {"seconds": {"trained": a_list}},
        "index": {"seconds": index | {"assigned": a_list}, "stored": stored(tables, "build_index")},
        "score": {"seconds": {term: scored[term] for term in ("run", "query") if term in scored}},
        "evaluate": {
            "seconds": {term: scored[term] for term in ("photo", "pair") if term in scored},
            "read": {"pair": READ_A_PAIR},
        },
        "link": {"seconds": rest(pairs, "group", [merge], "run", "photo", "visit"), "stored": stored(pairs, "group")},
        "merge": {"seconds": merge},
        # The small difference of two long runs: where it comes out as nothing, it says nothing.
        "copies": {
            "seconds": direct([run for run in photos if run.costs["copies"].processor > 0], "copies", "run", "photo")
        },
        "map": {"seconds": mapped},
        "query": {"seconds": query},
    }


# ---- memory ----


def asked_for(root: Path, index: float, book: float) -> dict[str, dict[str, float]]:
    """Step -> term -> bytes: what a job asks of Ray for it, by the job's own numbers; else what was measured of it.

    Args: index: bytes of a photo in an exact index. book: that a process which holds a manifest has for each part.
    """
    from ray_jobs import build_index, group, reconstruct
    from ray_jobs.runtime.parallel.placement import holding
    from retrieval.grouping.settings import GroupingConfig

    dim = Collection(photos=1).dim
    merged = 4 * dim + group._MERGED + group._LINK * GroupingConfig().neighbours
    sorts = {"run": float(build_index._SORT.memory)}
    return {
        **dict.fromkeys(("plan", "catalogue", "rows"), sorts),
        "train": {"sample": build_index._ROW + build_index._SAMPLE * 4 * dim},
        "score": scoring(root),
        "link": {"photo": index},  # each search looks at all of it
        "merge": {"run": float(holding(0).memory), "photo": merged},
        "service": {"photo": index},
        "driver": {"run": DRIVER, "part": book},
        "reconstruct": {"run": float(holding(0).memory), "photo": reconstruct._PAIRED},
    }


def scoring(root: Path, some: int = 10**6) -> dict[str, float]:
    """What evaluation asks for, of the job itself."""
    from ray_jobs.evaluate import scoring_of
    from retrieval.artifacts.folder import Folder
    from retrieval.artifacts.manifest import begin, seal

    asked = []
    for num in (some, 2 * some):
        folder, work = Folder.of(root / f"of-{num}"), {"kind": "embeddings", "config": {}, "inputs": {}}
        begin(folder, **work)
        seal(folder, counts={"num": num, "dim": Collection(photos=1).dim}, **work)
        asked.append(float(scoring_of(folder).memory))
    return {"run": 2 * asked[0] - asked[1], "photo": (asked[1] - asked[0]) / some}


IN_PARTS = ("ingest", "embed", "link")
"""Steps whose parts the driver hands out one by one."""
READ_A_PAIR = 3 * 512 / (1 << 13)
"""Bytes: each block of 8,192 that ask reads all vectors three times, see `evaluation.pieces.gallery`."""
DRIVER = 320e6  # docs/results/speed.md, by bench_cluster.py
RECONSTRUCT = {"photo": 0.074, "pair": 1.3e-7}  # docs/decisions/words-less-their-mean.md


def machine() -> str:
    """In words."""
    named = Path("/proc/cpuinfo").read_text().partition("model name\t: ")[2].partition("\n")[0]
    return f"{os.cpu_count()} cores of {named or platform.processor()}, no GPU"


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
