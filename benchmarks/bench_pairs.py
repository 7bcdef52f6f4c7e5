"""Memory and rate of what reconstruction does in one task each: listing photos, joining candidates, following links,
making groups.

    OMP_NUM_THREADS=1 python benchmarks/bench_pairs.py --photos 250000 1000000

Drawn, not found: each photo has 200 words and proposes 15 others, most of them near by name, and two of five have a
link to the next. Each step runs in a process of its own. What finding all that costs is reconstruct_growth.py's.
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

from benchmarks.bench_tables import measured, say
from benchmarks.scale_rows import name_of

_BLOCK, _PART, _EACH, _A_PLACE = 4096, 256, 15, 8
_LINKS_OF_A_FILE = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchPairsConfig:
    """Draw and measure."""

    photos: tuple[int, ...] = (50_000,)
    """Of each collection."""
    folder: str | None = None
    """Where they are made, and removed again; by default $TMPDIR."""


def make(root: str, num: int) -> None:
    """Words, candidates and links, as the stages before leave them."""
    from retrieval.artifacts.collection import CATALOG, CATALOG_SCHEMA
    from retrieval.artifacts.folder import Folder, part_name
    from retrieval.geometry.stages import LINKS, links_name

    out, rows, rng, lines = Folder.of(root), np.arange(num), np.random.default_rng(0), list[pa.Table]()
    out.write_bytes("vocabulary.f32", np.zeros((4096, 128), np.float32).tobytes(), about={"words": 4096})
    for part, start in enumerate(range(0, num, _PART)):
        mine = rows[start : start + _PART].tolist()
        known = {"image_id": [name_of(row) for row in mine], "split": ["train"] * len(mine)}
        known |= {"part": [part] * len(mine), "row": list(range(len(mine)))}
        nothing = {field.name: pa.nulls(len(mine), field.type) for field in CATALOG_SCHEMA}
        lines.append(pa.table(nothing | known, schema=CATALOG_SCHEMA))
        words = rng.integers(0, 4096, (len(mine), 200), np.int32)
        table = {"image_id": known["image_id"], "words": [own.tobytes() for own in words]}
        out.write_table(f"words/{part_name(part)}", pa.table(table), compression="none")
    out.write_table(CATALOG, pa.concat_tables(lines))
    for start in range(0, num, _BLOCK):
        own = np.repeat(rows[start : start + _BLOCK], _EACH)
        near = np.clip(own + rng.integers(-_A_PLACE, _A_PLACE + 1, len(own)), 0, num - 1)
        other = np.where(rng.random(len(own)) < 0.7, near, rng.integers(0, num, len(own)))
        pairs = np.unique(np.sort(np.stack([own, other], 1)[own != other], axis=1), axis=0).astype(np.int32)
        out.write_table(f"candidates/from-{start:09d}.parquet", pa.table({"a": pairs[:, 0], "b": pairs[:, 1]}))
    first = rows[: num - 1][rows[: num - 1] % 5 < 2]
    for block, start in enumerate(range(0, len(first), _LINKS_OF_A_FILE)):
        a = first[start : start + _LINKS_OF_A_FILE].astype(np.int32)
        table = {"a": a, "b": a + 1, "num_inliers": np.full(len(a), 40, np.int32), "matches": [b""] * len(a)}
        out.write_table(links_name(0, block), pa.table(table, schema=LINKS))


def listed(root: str) -> int:
    from retrieval.artifacts.folder import Folder
    from retrieval.geometry.pairing import list_photos

    return list_photos(Folder.of(root), Folder.of(root), ("train",))


def join(root: str, num: int) -> int:
    from retrieval.artifacts.folder import Folder
    from retrieval.geometry.pairing import join_blocks

    return join_blocks(Folder.of(root), _BLOCK, num)


def follow(root: str) -> int:
    from retrieval.artifacts.folder import Folder
    from retrieval.geometry.pairing import follow_links
    from retrieval.geometry.settings import ReconstructConfig

    return follow_links(Folder.of(root), 1, ReconstructConfig())


def group(root: str) -> dict[str, Any]:
    from retrieval.artifacts.folder import Folder
    from retrieval.geometry.reconstruction import group
    from retrieval.geometry.settings import ReconstructConfig

    return group(Folder.of(root), ReconstructConfig(min_images=2))


def main(cfg: BenchPairsConfig) -> None:
    for num in cfg.photos:
        with tempfile.TemporaryDirectory(dir=cfg.folder) as root:
            make(root, num)
            _, cost = measured(listed, root)
            say("list", num, cost)
            pairs, cost = measured(join, root, num)
            say("join", num, cost, f"{pairs:,} pairs")
            more, cost = measured(follow, root)
            say("follow", num, cost, f"{more:,} more pairs")
            found, cost = measured(group, root)
            say("group", num, cost, f"{found['links']:,} links, {found['groups']:,} groups")


if __name__ == "__main__":
    main(tyro.cli(BenchPairsConfig, description=__doc__))
