"""What a photo costs to reconstruct as the collection grows: processor time, pairs checked, memory, stage by stage.

    python benchmarks/reconstruct_growth.py --folder W
    python benchmarks/reconstruct_growth.py --folder W --sizes 1000 5000 20000

Each collection is drawn alike: a fifth of the photos show buildings, eight each, the others shapes that no other photo
has. All stages of the job run over their parts and blocks, one task after another, each stage in a process of its own.
A row a stage: CPU milliseconds a photo of the smallest collection and of each other, how many times as much that is,
and the peak of the stage's process in MB, less what it has before its first task. Well is: at most 1.3 times as much a
photo, all in all. Drawing is not counted. What lies finished in the folder is not done again and costs nothing.
Not one of `make bench`: it takes a quarter of an hour.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval.artifacts.collection import CATALOG, CATALOG_SCHEMA
from retrieval.artifacts.folder import Folder, part_name
from retrieval.data.demo.places import building, photograph
from retrieval.data.demo.settings import SceneConfig
from retrieval.geometry import extraction, pairing, reconstruction, stages
from retrieval.geometry.settings import FeatureConfig, ReconstructConfig
from retrieval.images.pixels import Pixels, encode_jpeg

SPLITS = ("train",)
_PART, _PAIRS, _PHOTOS = 256, 256, 4096  # as ingest cuts a large collection, and the job its work
_A_PLACE = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """How many photos, how large."""

    folder: str
    """For the collections and what is made of them."""
    sizes: tuple[int, ...] = (1000, 5000)
    """Photos of each collection, ascending."""
    side: int = 180
    """Longer side of a photo, pixels."""
    reconstruct: ReconstructConfig = field(default_factory=lambda: ReconstructConfig(max_features=200))
    """As the job's."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a stage: CPU seconds, and MB that its process rose by."""

    seconds: float
    megabytes: float


def main(cfg: Config) -> float:
    """Run, print the table, return how many times as much a photo costs in the largest as in the smallest."""
    made = [grown(cfg, num) for num in cfg.sizes]
    print(f"\n{'CPU ms a photo (peak MB)':26}" + "".join(f"{num:>18}" for num in cfg.sizes) + "   times")
    for name in made[0][0]:
        row = [costs[name] for costs, _ in made]
        print(f"{name:26}" + _row(cfg.sizes, row))
    whole = [
        Cost(sum(c.seconds for c in costs.values()), max(c.megabytes for c in costs.values())) for costs, _ in made
    ]
    print(f"{'all (the largest process)':26}" + _row(cfg.sizes, whole))
    for name in ("pairs", "links", "registered", "wrong"):
        print(f"{name + ' a photo':26}" + "".join(f"{one[name] / n:18.3f}" for n, (_, one) in zip(cfg.sizes, made)))
    return whole[-1].seconds / cfg.sizes[-1] / (whole[0].seconds / cfg.sizes[0])


def _row(sizes: Sequence[int], costs: Sequence[Cost]) -> str:
    each = [1000 * cost.seconds / num for num, cost in zip(sizes, costs, strict=True)]
    shown = "".join(f"{ms:9.2f} ({cost.megabytes:6.0f})" for ms, cost in zip(each, costs, strict=True))
    return f"{shown}{each[-1] / max(each[0], 1e-9):8.2f}"


def grown(cfg: Config, num: int) -> tuple[dict[str, Cost], dict[str, int]]:
    """Reconstruct a collection of so many photos. Costs of each stage, and counts."""
    root, config, costs = Path(cfg.folder) / str(num), cfg.reconstruct, dict[str, Cost]()
    collection, out, parts = Folder.of(root / "collection"), Folder.of(root / "out"), range(-(-num // _PART))

    def stage(name: str, work: Any, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            done, cost = alone.submit(_measured, work, calls).result()
        before = costs.get(name, Cost(0, 0))
        costs[name] = Cost(before.seconds + cost.seconds, max(before.megabytes, cost.megabytes))
        print(f"  {num} photos, {name}: {cost.seconds:.1f} CPU seconds, {cost.megabytes:.0f} MB", flush=True)
        return done

    draw(collection, num, cfg.side)
    sift = FeatureConfig(max_features=config.max_features)
    stage("features", extraction.extract_part, [(collection, out, part, SPLITS, sift) for part in parts])
    stage("vocabulary", pairing.train_vocabulary, [(collection, out, SPLITS, config)])
    stage("words", pairing.assign_part, [(out, part) for part in parts])
    stage("listed", pairing.list_photos, [(collection, out, SPLITS)])
    stage("vectors", pairing.write_slice, [(out, number) for number in range(-(-num // pairing.SLICE))])
    blocks = range(-(-num // _PHOTOS))
    stage("candidates", pairing.look_up_block, [(out, block, _PHOTOS, num, config) for block in blocks])
    pairs = 0
    for round_ in range(1 + config.rounds):
        find, call = (
            (pairing.follow_links, (out, round_, config)) if round_ else (pairing.join_blocks, (out, _PHOTOS, num))
        )
        (more,) = stage("pairs", find, [call])
        pairs += more
        checks = [(out, round_, block, _PAIRS, config) for block in range(-(-more // _PAIRS))]
        stage("checks", reconstruction.verify_block, checks)
    (joined,) = stage("groups", reconstruction.group, [(out, config)])
    stage("models", reconstruction.map_group, [(out, number, config) for number in range(joined["groups"])])
    (made,) = stage("tuples", reconstruction.assemble, [(out, joined["groups"], config)])
    counts = {"pairs": pairs, "links": joined["links"], "registered": made["registered"], "wrong": wrong(out, config)}
    return costs, counts


def _measured(work: Any, calls: Sequence[tuple[Any, ...]]) -> tuple[list[Any], Cost]:
    """What each call gave, in this process, and what they cost."""
    before, started = _peak(), time.process_time()
    done = [work(*call) for call in calls]
    return done, Cost(time.process_time() - started, _peak() - before)


def _peak() -> float:
    """MB that this process held at its worst. (ru_maxrss begins with what the parent held.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def draw(collection: Folder, num: int, side: int) -> None:
    """A collection of drawn photos, in parts as ingest leaves them, unless it is there."""
    if collection.exists(CATALOG):
        return
    scenes, listed, places = SceneConfig(size=side, images_per_place=_A_PLACE), [], num // 5 // _A_PLACE
    photos = [(f"place/{place:06d}", number) for place in range(places) for number in range(_A_PLACE)]
    photos += [(f"other/{at:06d}", 0) for at in range(num - len(photos))]
    for part, start in enumerate(range(0, num, _PART)):
        own, jpegs = photos[start : start + _PART], []
        for name, number in own:
            kind, at = name.split("/")
            pixels = (
                photograph(_building(int(at)), scenes, int(at), number) if kind == "place" else _shapes(int(at), side)
            )
            jpegs.append(encode_jpeg(pixels))
        collection.write_table(f"images/{part_name(part)}", pa.table({"jpeg": jpegs}))
        names = [f"{name}/{number}.jpg" for name, number in own]
        listed += [{"image_id": n, "split": "train", "part": part, "row": row} for row, n in enumerate(names)]
    collection.write_table(CATALOG, pa.Table.from_pylist(listed, CATALOG_SCHEMA))


@functools.lru_cache(maxsize=1)
def _building(place: int) -> list[Any]:
    return building(0, place)


def _shapes(seed: int, side: int) -> Pixels:
    """A photo of no place: boxes and discs of all colours over each other, which takes a millisecond to draw."""
    rng = np.random.default_rng([1, seed])
    picture = np.empty((3 * side // 4, side, 3), np.uint8)
    picture[:] = rng.integers(0, 256, 3)
    for _ in range(150):
        colour, at = rng.integers(0, 256, 3).tolist(), rng.integers(0, side, 2).tolist()
        if rng.random() < 0.7:
            box = ((float(at[0]), float(at[1])), tuple(rng.uniform(4, 30, 2).tolist()), float(rng.uniform(0, 90)))
            cv2.fillPoly(picture, [cv2.boxPoints(box).astype(np.int32)], colour)
        else:
            cv2.circle(picture, at, int(rng.integers(2, 12)), colour, -1)
    return np.asarray(cv2.GaussianBlur(picture, (3, 3), 0.7), np.uint8)


def wrong(out: Folder, config: ReconstructConfig) -> int:
    """Links between photos of two places."""
    names = [name.rpartition("/")[0] for name in out.read_table("photos.parquet", ["image_id"])["image_id"].to_pylist()]
    links = stages.links_of_rounds(out, 1 + config.rounds)
    return sum(names[a] != names[b] for a, b in zip(links["a"].to_pylist(), links["b"].to_pylist(), strict=True))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
