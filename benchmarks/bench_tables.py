"""What a collection's tables cost, without its photos: memory of every process and rate of every step, at any size.

    python benchmarks/bench_tables.py --rows 1000000 10000000

A source is a table of so many rows with image_ids of about 40 letters. `plan` lists it; `catalogue` divides what was
stored, of which one in 50 is a copy; `ask` is what an evaluation knows of all photos; `ids` sorts the rows of an index;
`map` makes what a service knows of them, and `open` is that service: what it holds once it is up, and after filters and
names were asked for. Each runs in a process of its own. Parts are of 16,384 rows, so that small files are not what is
measured. Anonymous memory is what a process has for itself; what it has mapped of files is the system's, and given back
where memory is short.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

_PART = 1 << 14
_SHOTS = 6  # photos of a person


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchTablesConfig:
    """Make and measure the tables of drawn collections."""

    rows: tuple[int, ...] = (100_000,)
    """Photos of each collection."""
    steps: tuple[Literal["plan", "tables"], ...] = ("plan", "tables")
    """What is measured: listing a source, all that is made of what was stored, or both."""
    folder: str | None = None
    """Where they are made, and removed again; by default $TMPDIR."""


def measured(work: Callable[..., Any], *args: Any) -> tuple[Any, dict[str, float]]:
    """Call it in a fresh process: what it returned; seconds, the most anonymous memory and all memory, MB."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_watched, work, *args).result()


def _watched(work: Callable[..., Any], *args: Any) -> tuple[Any, dict[str, float]]:
    peak, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            peak[0] = max(peak[0], held("RssAnon"))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    found = work(*args)
    seconds = time.perf_counter() - start
    over.set()
    watcher.join()
    return found, {"seconds": seconds, "anonymous": peak[0], "resident": held("VmHWM")}


def held(name: str) -> float:
    """MB of VmRSS, RssAnon or VmHWM of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def columns(start: int, stop: int) -> dict[str, list[Any]]:
    """Drawn rows, sorted by image_id: albums of people, one photo in 50 a copy of an earlier one."""
    draw = random.Random(start)
    numbers = range(start, stop)
    own = [number if number % 50 else draw.randrange(number + 1) for number in numbers]
    return {
        "image_id": [f"albums/{number // 1000:07d}/holiday-{number:012d}.jpg" for number in numbers],
        "label": [f"person {number // _SHOTS * 2654435761 % 1_000_000_007:010d}" for number in numbers],
        "content_hash": [f"{one * 0x9E3779B97F4A7C15 % (1 << 64):016x}" * 4 for one in own],
    }


def make_source(root: Path, rows: int) -> str:
    (root / "photo.jpg").write_bytes(b"x" * 1000)
    schema = pa.schema([("path", pa.string()), ("image_id", pa.string()), ("label", pa.string())])
    with pq.ParquetWriter(root / "manifest.parquet", schema) as writer:
        for start in range(0, rows, _PART):
            of = columns(start, min(rows, start + _PART))
            paths = ["photo.jpg"] * len(of["label"])
            writer.write_table(pa.table({"path": paths, **{n: of[n] for n in ("image_id", "label")}}, schema=schema))
    return str(root / "manifest.parquet")


def make_parts(out: str, rows: int) -> int:
    """What `ingest_part` leaves, without pixels."""
    from retrieval.artifacts.collection import IMAGE_SCHEMA
    from retrieval.artifacts.folder import Folder, part_name

    folder, starts = Folder.of(out), range(0, rows, _PART)
    for part, start in enumerate(starts):
        of = columns(start, min(rows, start + _PART))
        num = len(of["image_id"])
        known = of | {"photo": of["image_id"], "attributes": [[1, -1] * 20] * num}
        table = {
            field.name: pa.array(known[field.name], field.type) if field.name in known else pa.nulls(num, field.type)
            for field in IMAGE_SCHEMA
        }
        folder.write_table(f"images/{part_name(part)}", pa.table(table, schema=IMAGE_SCHEMA))
    folder.write_json("source.json", {}, about={})
    return len(starts)


def plan(source: str, out: str) -> dict[str, Any]:
    from retrieval.data.catalog import plan_collection

    return plan_collection(out, source=source, layout="manifest", config={}, part_size=_PART)


def catalogue(out: str, parts: int) -> dict[str, Any]:
    from retrieval.data.catalog import write_catalog
    from retrieval.data.settings import SplitConfig

    return write_catalog(out, parts, SplitConfig())["counts"]


def ids(collection: str, index: str) -> dict[str, int]:
    from retrieval.artifacts.folder import Folder
    from retrieval.search.shards import assign_rows

    return assign_rows(Folder.of(collection), Folder.of(index), ["train", "val", "query", "gallery"])


def asked(collection: str) -> int:
    """What an evaluation knows of all photos, who ask each other: held until its memory was looked at."""
    from retrieval.artifacts.folder import Folder
    from retrieval.evaluation.pieces.ranks import Positives
    from retrieval.evaluation.pieces.slices import cuts_of, slice_of
    from retrieval.evaluation.tasks import leave_one_out

    folder = Folder.of(collection)
    task = leave_one_out(folder, max_queries=1000)
    cuts, positives = cuts_of(task.gallery, 128), Positives(task.gallery.codes)
    names = sum(len(slice_of(folder, task.gallery, rows).ids) for rows in cuts)
    before = held("RssAnon")
    assert names == len(task.gallery) and positives.counts(task.queries.codes).min() > 1
    return round(before)


def make_map(index: str, collection: str, root: str) -> int:
    return len(_rows(index, collection, root).ids)


def opened(index: str, collection: str, root: str) -> dict[str, float]:
    """Memory of a service that maps the rows, beside what its libraries take: once it is open, and once it was used."""
    from retrieval.live.columns import Columns, Masks
    from retrieval.live.filters import Filter

    before = held("RssAnon")
    start = time.perf_counter()
    of = Columns(_rows(index, collection, root))
    seconds, up = time.perf_counter() - start, held("RssAnon") - before
    draw, masks = random.Random(0), Masks(of)
    for _ in range(1000):
        row = draw.randrange(len(of))
        name = of.ids[row].as_py()
        assert of.row_of(name) == row and of.label.name(row) is not None
    wanted = Filter(label=(of.label.name(5) or "",))
    start = time.perf_counter()
    assert 0 < masks.of(wanted, of.person).sum() <= _SHOTS
    first = time.perf_counter() - start
    used = held("RssAnon") - before
    return {"open s": seconds, "open MB": up, "used MB": used, "filter ms": 1e3 * first}


def _rows(index: str, collection: str, root: str) -> Any:
    from retrieval.artifacts.folder import Folder
    from retrieval.artifacts.node.cache import NodeCache
    from retrieval.artifacts.node.rows import open_rows

    return open_rows(Folder.of(index), Folder.of(collection), None, NodeCache(root=Path(root)))


def each(do: str, collection: str, index: str) -> None:
    """Begin both, or seal them."""
    from retrieval.artifacts.folder import Folder
    from retrieval.artifacts.manifest import begin, seal

    for kind, where in {"collection": collection, "index": index}.items():
        if do == "begin":
            begin(Folder.of(where), kind=kind, config={}, inputs={})
        else:
            names = [name for name in Folder.of(where).list() if not name.endswith(".json") or name == "source.json"]
            files = dict.fromkeys(names, "0" * 64)  # nobody looks whether they are the same
            seal(Folder.of(where), kind=kind, config={}, inputs={}, counts={}, books=[], files=files)


def run_plan(root: Path, rows: int) -> None:
    """Print its line."""
    (root / "source").mkdir()
    planned, cost = measured(plan, make_source(root / "source", rows), str(root / "planned"))
    assert planned["photos"] == rows
    say("plan", rows, cost)


def run_tables(root: Path, rows: int) -> None:
    """Print a line for each step."""
    collection, index, cache = str(root / "collection"), str(root / "index"), str(root / "cache")
    each("begin", collection, index)
    parts = make_parts(collection, rows)
    counts, cost = measured(catalogue, collection, parts)
    say("catalogue", rows, cost, f"{counts['duplicates']:,} copies, {counts['identities']:,} people")
    left, cost = measured(asked, collection)
    say("ask", rows, cost, f"{left} MB once it is up")
    found, cost = measured(ids, collection, index)
    say("ids", rows, cost)
    each("seal", collection, index)
    _, cost = measured(make_map, index, collection, cache)
    say("map", rows, cost)
    told, cost = measured(opened, index, collection, cache)
    disk = sum(file.stat().st_size for file in Path(cache).rglob("*") if file.is_file())
    indexed = sum(num for split, num in found.items() if split != "dropped")
    told |= {"bytes a row on disk": disk / indexed}
    say("open", rows, cost, ", ".join(f"{name} {value:.2f}" for name, value in told.items()))


def say(step: str, rows: int, cost: dict[str, float], more: str = "") -> None:
    rate = rows / cost["seconds"]
    print(
        f"{rows:>11,} {step:10} {cost['seconds']:8.1f} s {rate:12,.0f} rows/s  anonymous {cost['anonymous']:6.0f} MB  "
        f"resident {cost['resident']:6.0f} MB  {more}",
        flush=True,
    )


def main(cfg: BenchTablesConfig) -> None:
    for rows in cfg.rows:
        with tempfile.TemporaryDirectory(dir=cfg.folder) as root:
            if "plan" in cfg.steps:
                run_plan(Path(root), rows)
            if "tables" in cfg.steps:
                run_tables(Path(root), rows)
    print(f"the process that called them: anonymous {held('RssAnon'):.0f} MB, at most {held('VmHWM'):.0f} MB of all")


if __name__ == "__main__":
    main(tyro.cli(BenchTablesConfig, description=__doc__))
