"""The landmark road on real photographs, cross-validated: what each step gains on places that were kept out of mining.

    python benchmarks/real_places.py --photos ../shared/data/landmarks --weights mobilenet_v2.pth --workspace W \\
        --aliked aliked-n16.pth --sizes 256 480

The places (folders below sfm/ and pairs/) are dealt into folds. For each fold the whole pipeline runs once a size: its
places, and its share of the distractors, test; all other photos train, their labels hidden. Every labelled photo of a
fold asks all other photos of the fold. It prints how mining did against the folders' names: registered photos of each
place, models that mix places, tuples whose photos show one place. And a table a size, over all folds: networks as they
are, with adapters, fine-tuned, at scales, whitened, expanded; each as it ranks and with its first 50 results in order
of geometry. Behind an mAP: the middle 95 % of it, or of what it gains, over places drawn anew, 1,000 times.
Not one of `make bench`: it takes minutes a fold, and photographs that the project does not ship.
"""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.places_folds import Fold, deal, list_photos
from benchmarks.places_systems import (
    System,
    adapted,
    aliked_features,
    frozen,
    head,
    line_of,
    of_pipeline,
    sift_features,
    stored,
)
from ray_jobs import pipeline
from ray_jobs.presets import LANDMARKS, MULTI_SCALE, LandmarksConfig
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.tuples import TupleSet, read_images, read_tuples
from retrieval.geometry.settings import ReconstructConfig
from retrieval.search.settings import ExpansionConfig

_PRESET = dataclasses.replace(
    LANDMARKS,
    prepare=dataclasses.replace(LANDMARKS.prepare, size=640),
    split=dataclasses.replace(LANDMARKS.split, honour_source=True, test_fraction=0.0),
    model=dataclasses.replace(LANDMARKS.model, backbone="mobilenet_v2", image_size=256),
    siamese=dataclasses.replace(LANDMARKS.siamese, epochs=2, image_size=256),
    reconstruct=ReconstructConfig(val_fraction=0.0),
    expansion=ExpansionConfig(num=0),
    scales=MULTI_SCALE,
    whitened=False,  # Lw and adapters are learned from the vectors here: no photo is embedded again
    rerank=0,
    ablate=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which photographs, how many folds, and any setting of the pipeline."""

    photos: str
    """Folder with sfm/PLACE/*, pairs/PLACE/* and distractors/*."""
    weights: str
    """Weights file of the backbone."""
    workspace: str
    """Folder for a workspace a fold. What lies there finished is not done again."""
    aliked: str = ""
    """Weights of ALIKED-n16, as describe --features.weights; empty: results are put in order by SIFT alone."""
    networks: tuple[str, ...] = ()
    """NAME=WEIGHTS of other networks, as train --model.backbone and --weights, which are not trained."""
    sizes: tuple[int, ...] = (480,)
    """Longer sides that networks see, and the trained one is trained at, pixels. Photos are prepared and reconstructed
    once for all of them."""
    expanded: int = 3
    """Results that a query is expanded by."""
    folds: int = 3
    """Parts that the places are dealt into."""
    only: tuple[int, ...] = ()
    """Folds to run; empty: all."""
    pipeline: LandmarksConfig = field(default_factory=lambda: _PRESET)
    """Settings, less source, weights, workspace and the sizes that networks see."""


def main(cfg: Config) -> dict[str, dict[str, float]]:
    """Run the folds, print the tables, return the figures of each system by size and name."""
    photos = list_photos(Path(cfg.photos))
    fold_of = deal(photos, cfg.folds)
    numbers = cfg.only or tuple(range(cfg.folds))
    runs = {size: [run(cfg, photos, fold_of, fold, size) for fold in numbers] for size in cfg.sizes}
    mined = [folders["tuples"] for folders in runs[cfg.sizes[0]]]
    print(f"\nMining, fold by fold, against the folders' names ({len(photos)} photos in all)")
    for fold, tuples in zip(numbers, mined, strict=True):
        found = audit(tuples, {str(path): place for path, place in photos})
        print(f"  fold {fold}: " + ", ".join(f"{name} {value}" for name, value in found.items()))
    in_fold = np.array([fold_of[place or str(path)] for path, place in photos])
    folds = [Fold.of(photos, np.flatnonzero(in_fold == fold)) for fold in numbers]
    asked = np.concatenate([fold.hard[fold.queries] for fold in folds])
    print(f"\n{len(asked)} queries, {int(asked.sum())} of hard pairs, in {len(folds)} folds", flush=True)
    jpegs = stored(Path(cfg.photos), photos, cfg.pipeline.prepare.size)
    features = {"SIFT": sift_features(jpegs)}
    if cfg.aliked:
        features["ALIKED"] = aliked_features(jpegs, cfg.aliked)
    ids, known = [path.as_posix() for path, _ in photos], [read_tuples(tuples) for tuples in mined]
    figures = {}
    for size in cfg.sizes:
        print(f"\n{size} pixels\n{head(('system',), folds, features)}", flush=True)
        first = None
        for name, system in systems(cfg, size, runs[size], folds, jpegs, ids, known):
            for num in (0, cfg.expanded):
                named = f"{name} + QE" if num else name
                line, ranked = line_of((named,), system, folds, features, num_expanded=num, first=first)
                first = first or ranked
                figures[f"{size}: {named}"] = ranked.means()
                print(line, flush=True)
    return figures


def systems(
    cfg: Config,
    size: int,
    runs: list[dict[str, Folder]],
    folds: list[Fold],
    jpegs: list[bytes],
    ids: list[str],
    known: list[TupleSet],
) -> Iterator[tuple[str, System]]:
    """All that is compared at one size: networks as they are, and the one that the pipelines trained."""
    made = []
    for folders in runs:
        report = folders["report"]
        made.append(of_pipeline(report.parent.parent, report.read_json("metrics.json"), ids))
    for network in (f"{cfg.pipeline.model.backbone}={cfg.weights}", *cfg.networks):
        for scales in (1, 3):
            name = f"{network.partition('=')[0]}{' + ms' if scales == 3 else ''}"
            vectors = frozen(network, size, scales, jpegs)
            yield from named(name, adapted([vectors] * len(folds), ids, known, folds))
    for name in ("after", "after + ms"):
        vectors = [of_fold[name] for of_fold in made]
        yield from named(name.replace("after", "fine-tuned"), adapted(vectors, ids, known, folds))


def named(name: str, made: dict[str, System]) -> Iterator[tuple[str, System]]:
    for adapter, system in made.items():
        yield name + adapter, system


def run(
    cfg: Config, photos: list[tuple[Path, str]], fold_of: dict[str, int], fold: int, size: int
) -> dict[str, Folder]:
    """The pipeline on one fold: the folders that it made."""
    workspace = Path(cfg.workspace).resolve() / f"fold-{fold}"
    manifest = write_manifest(workspace / "photos.csv", Path(cfg.photos), photos, fold_of, fold)
    made = dataclasses.replace(
        cfg.pipeline,
        source=str(manifest),
        layout="manifest",
        weights=cfg.weights,
        workspace=str(workspace),
        model=dataclasses.replace(cfg.pipeline.model, image_size=size),
        siamese=dataclasses.replace(cfg.pipeline.siamese, image_size=size),
    )
    return pipeline.main(made)


def write_manifest(out: Path, root: Path, photos: list[tuple[Path, str]], fold_of: dict[str, int], fold: int) -> Path:
    """A CSV manifest in which the fold's photos are the gallery, and all others go where the pipeline puts them."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "image_id", "label", "split"])
        for path, place in photos:
            tests = fold_of[place or str(path)] == fold
            rows.writerow([root.resolve() / path, path.as_posix(), place, "gallery" if tests else ""])
    return out


def audit(folder: Folder, place_of: dict[str, str]) -> dict[str, Any]:
    """Mining against the true places: what mining itself never saw."""
    known, images = read_tuples(folder), read_images(folder).to_pylist()
    own = [place_of[name] or name for name in known.image_ids]
    pairs = Counter(
        own[query] == own[row] for query, rows in zip(known.queries, known.candidates, strict=True) for row in rows
    )
    models: dict[int, set[str]] = {}
    registered: Counter[str] = Counter()
    for row in images:
        if row["model"] >= 0:
            place = place_of[row["image_id"]] or row["image_id"]
            models.setdefault(row["model"], set()).add(place)
            registered[place] += 1
    in_all = Counter(own)
    clusters: dict[str, set[int]] = {}
    for place, cluster in zip(own, known.clusters.tolist(), strict=True):
        clusters.setdefault(place, set()).add(cluster)
    return {
        "registered": {place: f"{num}/{in_all[place]}" for place, num in sorted(registered.items())},
        "models": len(models),
        "models of two places": sum(len(places) > 1 for places in models.values()),
        "pairs of one place": f"{pairs[True]}/{pairs.total()}",
        # A query's negatives come from other clusters than its own, so these could be its own place.
        "queries whose place is in several clusters": sum(len(clusters[own[query]]) > 1 for query in known.queries),
    }


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
