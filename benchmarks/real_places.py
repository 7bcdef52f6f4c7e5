"""The landmark road on real photographs, cross-validated: what each step gains on places that were kept out of mining.

    python benchmarks/real_places.py --photos ../shared/data/landmarks --weights mobilenet_v2.pth --workspace W

The places (folders below sfm/ and pairs/) are dealt into folds. For each fold the whole pipeline runs once: its places,
and its share of the distractors, test; all other photos train, their labels hidden. Every labelled photo of a fold asks
all other photos of the fold. It prints, over all folds, mAP and recall@1 of each system, and how mining did against the
folders' names: registered photos of each place, models that mix places, tuples whose photos show one place.
Not one of `make bench`: it takes minutes a fold, and photographs that the project does not ship.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ray_jobs import pipeline
from ray_jobs.presets import LANDMARKS, LandmarksConfig
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.tuples import read_images, read_tuples
from retrieval.geometry.settings import ReconstructConfig
from retrieval.search.settings import ExpansionConfig
from retrieval.training.settings import WhitenConfig

SAME = {"entry_P10": "castle_P30"}  # two sets of one building
_PRESET = dataclasses.replace(
    LANDMARKS,
    prepare=dataclasses.replace(LANDMARKS.prepare, size=640),
    split=dataclasses.replace(LANDMARKS.split, honour_source=True, test_fraction=0.0),
    model=dataclasses.replace(LANDMARKS.model, backbone="mobilenet_v2", image_size=256),
    siamese=dataclasses.replace(LANDMARKS.siamese, epochs=2, image_size=256),
    reconstruct=ReconstructConfig(val_fraction=0.0),
    whiten=WhitenConfig(shrinkage=0.3),
    expansion=ExpansionConfig(num=3),
    rerank=20,
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
    folds: int = 3
    """Parts that the places are dealt into."""
    only: tuple[int, ...] = ()
    """Folds to run; empty: all."""
    pipeline: LandmarksConfig = field(default_factory=lambda: _PRESET)
    """Settings, less source, weights and workspace."""


def main(cfg: Config) -> dict[str, Any]:
    """Run the folds, print the tables, return the figures of each system."""
    photos = list_photos(Path(cfg.photos))
    fold_of = deal(photos, cfg.folds)
    runs, mined = [], []
    for fold in cfg.only or range(cfg.folds):
        workspace = Path(cfg.workspace).resolve() / f"fold-{fold}"
        manifest = write_manifest(workspace / "photos.csv", Path(cfg.photos), photos, fold_of, fold)
        settings = {"source": str(manifest), "layout": "manifest", "weights": cfg.weights, "workspace": str(workspace)}
        folders = pipeline.main(dataclasses.replace(cfg.pipeline, **settings))
        runs.append(folders["report"].read_json("metrics.json"))
        mined.append(audit(folders["tuples"], {str(path): place for path, place in photos}))
    print(f"\nMining, fold by fold, against the folders' names ({len(photos)} photos in all)")
    for fold, found in zip(cfg.only or range(cfg.folds), mined, strict=True):
        print(f"  fold {fold}: " + ", ".join(f"{name} {value}" for name, value in found.items()))
    figures = pooled(runs)
    asked = sum(run["data"]["num_queries"] for run in runs)
    print(f"\n{asked} queries of places kept out of mining, {len(runs)} folds      mAP  recall@1  (mAP of each fold)")
    for name, row in figures.items():
        each = " ".join(f"{value:.3f}" for value in row["folds"])
        print(f"  {name:44s} {row['mAP']:8.4f} {row['recall@1']:8.4f}   {each}")
    return figures


def list_photos(root: Path) -> list[tuple[Path, str]]:
    """(path below root, place), the place empty for a distractor.

    Raises: ValueError if the folder is laid out otherwise.
    """
    found = []
    for kind in ("sfm", "pairs", "distractors"):
        files = sorted(path for path in (root / kind).rglob("*") if path.is_file() and path.suffix != ".txt")
        if not files:
            raise ValueError(f"{root / kind} holds no photo, expected sfm/PLACE/*, pairs/PLACE/*, distractors/*.")
        for path in files:
            place = "" if kind == "distractors" else SAME.get(path.parent.name, path.parent.name)
            found.append((path.relative_to(root), place))
    return found


def deal(photos: list[tuple[Path, str]], folds: int) -> dict[str, int]:
    """Place -> fold, those of sfm/ and of pairs/ dealt in turn; and distractor's path -> fold, by hash."""
    fold_of = {}
    for kind in ("sfm", "pairs"):
        places = {place for path, place in photos if path.parts[0] == kind}
        fold_of |= {place: at % folds for at, place in enumerate(sorted(places, key=_draw))}
    return fold_of | {str(path): int.from_bytes(_draw(str(path))[:4]) % folds for path, place in photos if not place}


def _draw(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


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


def pooled(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each system's means over the queries of all folds."""
    weights = [run["data"]["num_queries"] for run in runs]
    figures = {}
    for name in runs[0]["order"]:
        rows = [run["systems"][name] for run in runs]
        figures[name] = {
            key: sum(weight * row[key] for weight, row in zip(weights, rows, strict=True)) / sum(weights)
            for key in ("mAP", "recall@1")
        } | {"folds": [row["mAP"] for row in rows]}
    return figures


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
