"""Candidate pairs by bags of visual words beside all pairs: how many are checked, how long, and what is reconstructed.

    python benchmarks/bench_reconstruct.py
    python benchmarks/bench_reconstruct.py --source PHOTOS
    python benchmarks/bench_reconstruct.py --source PHOTOS --distractors OTHERS --num-distractors 50

Both ways take the same local features through the same checks, groups and mapping, in one process, one after the other.
A row each: pairs checked, links found, photos registered in a model, and CPU seconds of this process, which neighbours
on the machine do not change. Well is: at most a quarter of the pairs, and no fewer photos registered. Each photo is
checked against a fixed number of others (--reconstruct.num-candidates), so the part falls as the collection grows; on a
set so small that it passes a quarter, the part itself says little. A strong link missed costs nothing while others join
its photos.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval.artifacts.collection import CATALOG, CATALOG_SCHEMA, read_catalog
from retrieval.artifacts.folder import Folder, part_name
from retrieval.data.demo.places import write_scenes
from retrieval.data.demo.settings import SceneConfig
from retrieval.geometry import extraction, pairing, reconstruction, stages
from retrieval.geometry.settings import FeatureConfig, ReconstructConfig
from retrieval.geometry.stages import pairs_name
from retrieval.images import pixels
from retrieval.images.pixels import encode_jpeg, fit

SPLITS = ("train",)
_PART, _BLOCK = 16, 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which photos, and how they are looked at."""

    source: str = ""
    """Folder of photos, searched through; empty: drawn places. All pairs of 150 photos take ten minutes."""
    distractors: str = ""
    """Folder of photos of other things."""
    num_distractors: int = 0
    """So many of them, spread over the folder."""
    size: int = 640
    """Longer side of a photo, pixels."""
    scenes: SceneConfig = field(default_factory=lambda: SceneConfig(num_places=10, num_distractors=20, size=360))
    """The drawn places, where there is no source."""
    reconstruct: ReconstructConfig = field(default_factory=ReconstructConfig)
    """As the job's."""


def main(cfg: Config) -> float:
    """Run, print the table, return the part of all pairs that are candidates."""
    with tempfile.TemporaryDirectory() as temp:
        root = Path(temp)
        num = store(root / "collection", photos(cfg, root / "drawn"), cfg.size)
        collection, parts = Folder.of(root / "collection"), range(-(-num // _PART))
        sift = FeatureConfig(max_features=cfg.reconstruct.max_features)
        started = time.process_time()
        for part in parts:
            extraction.extract_part(collection, Folder.of(root / "words"), part, SPLITS, sift)
        print(
            f"{num} photos, {cfg.size} px at most; local features {time.process_time() - started:.1f} CPU seconds",
            flush=True,
        )
        (root / "all").mkdir()
        (root / "all/features").symlink_to(root / "words/features")
        words, everything = (Folder.of(root / name) for name in ("words", "all"))
        few = reconstruct(words, cfg.reconstruct, find_by_words, collection, words, cfg.reconstruct)
        many = reconstruct(everything, cfg.reconstruct, take_all, words, everything)
        report(few, many, cfg.reconstruct)
    return few["pairs"] / many["pairs"]


def photos(cfg: Config, drawn: Path) -> list[Path]:
    """Files of the places, then those of the distractors."""
    if not cfg.source:
        return found_below(write_scenes(drawn, cfg.scenes).parent)
    more = found_below(Path(cfg.distractors)) if cfg.distractors else []
    picked = np.linspace(0, len(more) - 1, min(cfg.num_distractors, len(more))).astype(int)
    return found_below(Path(cfg.source)) + [more[at] for at in picked]


def found_below(folder: Path) -> list[Path]:
    """Raises: ValueError if there is no photo."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    if not files:
        raise ValueError(f"{folder} holds no .jpg, .jpeg or .png photo. Name a folder of photos.")
    return files


def store(where: Path, files: list[Path], size: int) -> int:
    """As ingest stores them, all for training. Returns how many."""
    folder, listed = Folder.of(where), []
    for part, start in enumerate(range(0, len(files), _PART)):
        own = files[start : start + _PART]
        jpegs = [encode_jpeg(fit(pixels.decode(path.read_bytes())[0], size)) for path in own]
        folder.write_table(f"images/{part_name(part)}", pa.table({"jpeg": jpegs}))
        names = ["/".join(path.parts[-2:]) for path in own]
        listed += [{"image_id": n, "split": "train", "part": part, "row": row} for row, n in enumerate(names)]
    folder.write_table(CATALOG, pa.Table.from_pylist(listed, CATALOG_SCHEMA))
    return len(files)


def find_by_words(collection: Folder, out: Folder, config: ReconstructConfig) -> None:
    """Vocabulary, words, candidates: photos.parquet and the pairs of round 0."""
    pairing.train_vocabulary(collection, out, SPLITS, config)
    parts = sorted(set(read_catalog(collection, SPLITS)["part"].to_pylist()))
    for part in parts:
        pairing.assign_part(out, part)
    num = pairing.list_photos(collection, out, SPLITS)
    for number in range(-(-num // pairing.SLICE)):
        pairing.write_slice(out, number)
    pairing.look_up_block(out, 0, num, num, config)
    pairing.join_blocks(out, num, num)


def take_all(words: Folder, out: Folder) -> None:
    """The same photos; every pair of them."""
    photos = words.read_table("photos.parquet")
    first, second = np.triu_indices(len(photos), 1)
    out.write_table("photos.parquet", photos)
    pairing.write_pairs(out, 0, np.stack([first, second], axis=1))


def reconstruct(out: Folder, config: ReconstructConfig, find_pairs: Callable[..., None], *args: Any) -> dict[str, Any]:
    """Pairs, links, groups, models, tuples. Counts, and CPU seconds of each."""
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[..., Any], *args: Any) -> Any:
        started = time.process_time()
        done = work(*args)
        seconds[name] = seconds.get(name, 0.0) + time.process_time() - started
        return done

    timed("pairs", find_pairs, *args)
    pairs = 0
    for round_ in range(1 + config.rounds):
        if round_:
            timed("pairs", pairing.follow_links, out, round_, config)
        more = len(out.read_table(pairs_name(round_)))
        pairs += more
        for block in range(-(-more // _BLOCK)):
            timed("checks", reconstruction.verify_block, out, round_, block, _BLOCK, config)
    joined = timed("group", reconstruction.group, out, config)
    for number in range(joined["groups"]):
        timed("mapping", reconstruction.map_group, out, number, config)
    made = timed("tuples", reconstruction.assemble, out, joined["groups"], config)
    found = stages.links_of_rounds(out, 1 + config.rounds)
    links = {(row["a"], row["b"]): row["num_inliers"] for row in found.to_pylist()}
    row = made | {"pairs": pairs, "links": links, "seconds": seconds}
    print(f"{out.path.rpartition('/')[2]:6}{shown(row)}", flush=True)
    return row


def shown(row: dict[str, Any]) -> str:
    """A line of the table."""
    part = 100 * row["pairs"] / (row["images"] * (row["images"] - 1) / 2)
    took = ", ".join(f"{name} {row['seconds'].get(name, 0.0):.1f}" for name in ("pairs", "checks", "mapping"))
    counts = f"{row['pairs']:7d} pairs ({part:5.1f} %){len(row['links']):6d} links{row['registered']:5d} registered"
    return f"{counts} in {row['models']} models, {row['queries']} queries; CPU seconds: {took}"


def report(few: dict[str, Any], many: dict[str, Any], config: ReconstructConfig) -> None:
    """What the candidates save, and what they miss."""
    spent = [row["seconds"]["pairs"] + row["seconds"]["checks"] for row in (few, many)]
    lost = [inliers for pair, inliers in many["links"].items() if pair not in few["links"]]
    strong = sum(inliers >= config.strong_inliers for inliers in lost)
    print(f"pairs checked, of all (aim <= 25 %)        {100 * few['pairs'] / many['pairs']:.1f} %")
    print(f"registered, more than by all (aim >= 0)    {few['registered'] - many['registered']:+d}")
    print(f"CPU seconds until links are known, ratio   {spent[1] / spent[0]:.2f}  ({spent[1]:.1f} / {spent[0]:.1f})")
    print(f"links missed                               {len(lost)} of {len(many['links'])}, {strong} of them strong")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
