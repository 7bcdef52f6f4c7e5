"""Memory and rate of merging links into groups, and of what the job's page asks, at any number of photos.

    OMP_NUM_THREADS=1 python benchmarks/bench_merge.py --photos 1000000 4000000

Photos of 128 numbers, six of a person, and ten links each, of which five are strangers'; tables as bench_tables.py has
them. `group` is the task that merges, `pairs` says what is to be compared, `twice` writes what is there twice, `show`
reckons figures and draws, each in a process of its own. How
long it takes to find links, and how right groups are, is bench_group.py's.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bench_tables import _PART, _SHOTS, catalogue, ids, measured, say
from benchmarks.scale_rows import make_parts

_DIM = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchMergeConfig:
    """Make and merge drawn collections."""

    photos: tuple[int, ...] = (100_000,)
    """Of each collection."""
    strangers: int = 5
    """That each photo is linked with, beside the five others of its person."""
    folder: str | None = None
    """Where they are made, and removed again; by default $TMPDIR."""


def make_embeddings(out: str, collection: str, parts: int) -> None:
    """Of each photo 128 numbers, about as like those of the same person as photos of faces are."""
    from retrieval.artifacts.embeddings import write_part
    from retrieval.artifacts.folder import Folder, part_name

    for part in range(parts):
        names = Folder.of(collection).read_table(f"images/{part_name(part)}", columns=["image_id"])
        rng, person = np.random.default_rng(part), (part * _PART + np.arange(len(names))) // _SHOTS
        person -= person[0]
        vectors = rng.normal(size=(person[-1] + 1, _DIM))[person] + 0.7 * rng.normal(size=(len(names), _DIM))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        write_part(Folder.of(out), part, names["image_id"], vectors.astype(np.float32))


def make_links(out: str, index: str, strangers: int) -> tuple[list[str], int]:
    """As LinkFinder leaves them, in parts of the index's rows: the rest of a person, and strangers."""
    import pyarrow.compute as pc

    from retrieval.artifacts.folder import Folder
    from retrieval.artifacts.index import IDS
    from retrieval.grouping.links import LINK_SCHEMA, links_name

    ids = Folder.of(index).read_table(IDS, columns=["image_id"])["image_id"]
    person = pc.cast(pc.utf8_slice_codeunits(ids, -16, -4), pa.int64()).to_numpy() // _SHOTS
    firsts, rng, names = np.searchsorted(person, person), np.random.default_rng(0), list[str]()
    num = 0
    for part, start in enumerate(range(0, len(person), _PART)):
        rows = np.arange(start, min(len(person), start + _PART))[:, None]
        own = np.minimum(firsts[rows] + np.arange(_SHOTS), len(person) - 1)
        more = rng.integers(0, len(person), (len(rows), strangers))
        other = np.concatenate([np.where(person[own] == person[rows], own, rows), more], axis=1)
        linked = other != rows
        row = np.broadcast_to(rows, other.shape)[linked].astype(np.int32)
        table = {"row": row, "neighbour": other[linked].astype(np.int32), "score": np.full(len(row), 0.5, np.float32)}
        names.append(links_name(part))
        Folder.of(out).write_table(names[-1], pa.table(table, schema=LINK_SCHEMA))
        num += len(row)
    return names, num


def merged(where: dict[str, str], names: list[str]) -> dict[str, int]:
    """What the job's task does once all links are there."""
    from retrieval.grouping.people import write_people

    return write_people(plan_of(where), [*names])


def paired(where: dict[str, str], names: list[str]) -> dict[str, int]:
    """Which photos are to be compared."""
    from retrieval.grouping.duplicates import write_pairs

    plan = plan_of(where)
    return write_pairs(plan.index, plan.out, names, plan.config.duplicate_neighbours)


def doubled(where: dict[str, str]) -> None:
    """What is there twice, once all pairs were compared."""
    from retrieval.grouping.people import write_duplicates

    write_duplicates(plan_of(where), 0)


def shown(where: dict[str, str]) -> dict[str, float]:
    """Figures and page, as the job's task makes them."""
    from ray_jobs.group import _show

    return _show(plan_of(where), {"people": 1, "grouped": 1, "num": 1})


def plan_of(where: dict[str, str]) -> Any:
    from retrieval.artifacts.folder import Folder
    from retrieval.grouping.people import plan_people
    from retrieval.grouping.settings import GroupingConfig
    from retrieval.grouping.threshold import Threshold

    how: dict[str, Any] = {"config": GroupingConfig(), "threshold": Threshold(value=0.5, source="drawn")}
    return plan_people(**{name: Folder.of(folder) for name, folder in where.items()}, **how)


def seal_all(where: dict[str, str]) -> None:
    from retrieval.artifacts.folder import Folder
    from retrieval.artifacts.index import IDS
    from retrieval.artifacts.manifest import seal

    num, inputs = Folder.of(where["index"]).num_rows(IDS), {"model": "drawn"}
    config = {"prepare": {"crop": "face"}}
    for kind in ("collection", "embeddings", "index"):
        folder = Folder.of(where[kind])
        names = [name for name in folder.list() if not name.endswith(".json") or name == "source.json"]
        files = dict.fromkeys(names, "0" * 64)  # nobody looks whether they are the same
        made = seal(
            folder, kind=kind, config=config, inputs=dict(inputs), counts={"num": num, "dim": _DIM}, files=files
        )
        inputs[kind] = made.fingerprint


def run(root: Path, photos: int, strangers: int) -> None:
    """Print a line for each step."""
    where = {kind: str(root / kind) for kind in ("collection", "embeddings", "index", "out")}
    parts = -(-photos // _PART)
    make_parts(root / "collection", np.arange(photos) // _SHOTS, _PART)
    measured(catalogue, where["collection"], parts)
    measured(ids, where["collection"], where["index"])
    make_embeddings(where["embeddings"], where["collection"], parts)
    seal_all(where)
    links, num = make_links(where["out"], where["index"], strangers)
    found, cost = measured(merged, where, links)
    say("group", photos, cost, f"{num:,} links, {found['people']:,} people, {found['grouped']:,} photos in them")
    asked, cost = measured(paired, where, links)
    say("pairs", photos, cost, f"{asked['pairs']:,} pairs")
    _, cost = measured(doubled, where)
    say("twice", photos, cost)
    figures, cost = measured(shown, where)
    say("show", photos, cost, f"BCubed {figures['bcubed_precision']:.4f}, {figures['bcubed_recall']:.4f}")


def main(cfg: BenchMergeConfig) -> None:
    for photos in cfg.photos:
        with tempfile.TemporaryDirectory(dir=cfg.folder) as root:
            run(Path(root), photos, cfg.strangers)


if __name__ == "__main__":
    main(tyro.cli(BenchMergeConfig, description=__doc__))
