"""Networks for faces beside each other, on the same photos under one protocol: each photo asks all the others.

    python benchmarks/compare_faces.py --workspaces sface=W1 trained=W2 published=W3

A workspace is one in which `python -m ray_jobs.pipeline faces`, `faces-train` or `faces-published` has finished; all of
the same source. Compared on the photos in which all of them found a face, twice: all people; and those people alone
whom none of them was trained on, by the workspaces' own splits. Beside it the processor time that one thread takes to
embed a stored face, mirror included where the network adds it: the median of rounds in turn.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval.artifacts import published
from retrieval.artifacts.collection import Jpegs, read_catalog
from retrieval.artifacts.embeddings import read_rows
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Manifest, read_manifest
from retrieval.evaluation.metrics import leave_one_out
from retrieval.models.embedder import Embedder

_SEEN = ("train", "val")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What to compare."""

    workspaces: tuple[str, ...]
    """NAME=WORKSPACE, two or more."""
    rounds: int = 5
    """How often each network is timed; 0: not at all."""
    batch: int = 16
    """Faces at once, beside one."""


@dataclass(frozen=True, slots=True)
class System:
    """What a workspace has: image_id -> (label, split, part, row), its embeddings, and who made them."""

    name: str
    collection: Folder
    model: Folder
    embeddings: Folder
    photos: dict[str, tuple[str, str, int, int]]
    manifest: Manifest


def main(cfg: Config) -> dict[str, dict[str, tuple[float, float]]]:
    """Run, print the table. Returns NAME -> {"all": (recall@1, mAP), "kept aside": ...}."""
    systems = [read(*one.split("=", 1)) for one in cfg.workspaces]
    common = sorted(set.intersection(*(set(system.photos) for system in systems)))
    trained_on = {label for system in systems for label, split, *_ in system.photos.values() if split in _SEEN}
    label = {photo: systems[0].photos[photo][0] for photo in common}
    sides = {"all": common, "kept aside": [photo for photo in common if label[photo] not in trained_on]}
    for side, photos in sides.items():
        print(f"{side}: {len(photos)} photos of {len({label[photo] for photo in photos})} people")
    took = times(cfg, systems, common)
    print(f"{'':14}{'no face':>9}{'all: recall@1':>16}{'mAP':>8}{'kept aside: recall@1':>23}{'mAP':>8}", end="")
    print(f"{'ms of one':>12}{f'of {cfg.batch}, each':>12}")
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for system in systems:
        figures = found[system.name] = {side: scored(system, photos) for side, photos in sides.items()}
        (a, b), (c, d) = figures["all"], figures["kept aside"]
        missed = system.manifest.counts["source"] - system.manifest.counts["stored"]
        print(f"{system.name:14}{missed:>9}{a:>16.4f}{b:>8.4f}{c:>23.4f}{d:>8.4f}", end="")
        print("".join(f"{value:>12.1f}" for value in took.get(system.name, ())), flush=True)
    return found


def read(name: str, workspace: str) -> System:
    """What a finished workspace serves. Raises: ValueError if there is nothing, or its embeddings are gone."""
    current = published.read_current(Folder.of(workspace))
    wanted = read_manifest(current["index"], "index").inputs["embeddings"]
    for folder in sorted(Path(workspace, "embeddings").iterdir()):
        if (folder / "manifest.json").exists():
            embeddings = Folder.of(folder)
            if read_manifest(embeddings, "embeddings").fingerprint == wanted:
                break
    else:
        raise ValueError(f"{workspace} has no longer the embeddings that its index was made of.")
    columns = ("image_id", "label", "split", "part", "row")
    rows = read_catalog(current["collection"], columns=columns).to_pylist()
    photos = {row["image_id"]: (row["label"], row["split"], row["part"], row["row"]) for row in rows}
    manifest = read_manifest(current["collection"], "collection")
    return System(name, current["collection"], current["model"], embeddings, photos, manifest)


def scored(system: System, photos: list[str]) -> tuple[float, float]:
    """Recall@1 and mAP, each of the photos asking all the others of them."""
    labels, _, parts, rows = zip(*(system.photos[photo] for photo in photos), strict=True)
    vectors = read_rows(system.embeddings, photos, np.array(parts), np.array(rows))
    values = leave_one_out(vectors, labels, ks=(1,)).values
    return values["recall@1"], values["mAP"]


def times(cfg: Config, systems: list[System], common: list[str]) -> dict[str, list[float]]:
    """NAME -> ms of processor time a face, one at a time and `batch` at once, JPEG to embedding."""
    work = {}
    for system in systems:
        places = [system.photos[photo][2:] for photo in common[: cfg.batch]]
        work[system.name] = (Embedder(system.model, device="cpu", num_threads=1), list(faces(system, places)))
    taken: dict[str, list[list[float]]] = {name: [[], []] for name in work if cfg.rounds}
    for turn in range(cfg.rounds and cfg.rounds + 1):
        for name, (embedder, jpegs) in work.items():
            for column, batches in enumerate(([[jpeg] for jpeg in jpegs], [jpegs])):
                begun = time.process_time()
                for batch in batches:
                    embedder.embed_jpegs(batch)
                if turn:  # the first is to warm up
                    taken[name][column].append(1e3 * (time.process_time() - begun) / len(jpegs))
    return {name: [statistics.median(column) for column in columns] for name, columns in taken.items()}


def faces(system: System, places: list[tuple[int, int]]) -> list[bytes]:
    """The stored crops, in this order."""
    found = Jpegs(system.collection).read(places)
    return [found[place] for place in places]


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
