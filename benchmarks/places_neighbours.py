"""Three ways to let neighbours correct a ranking of places: what they gain over folds.

    python benchmarks/places_neighbours.py --photos ../shared/data/landmarks --networks mobilenet_v2=mobilenet_v2.pth \\
        --aliked aliked-n16.pth

Networks are taken as they are, at 480 pixels; who asks whom is as in `real_places.py`. A row a way: what its mAP is and
what it gains, with settings chosen on the other folds, of the ranking itself and with the first 50 results in order of
ALIKED's points. And what subtracting means gains by the photos that they are taken over. Figures and their meaning:
docs/decisions/neighbours-do-not-rescore.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.places_folds import Figures, Fold, deal, list_photos
from benchmarks.places_systems import aliked_features, frozen, stored
from retrieval.geometry.features import Features
from retrieval.search.ranking import Neighbours

FOLDS = 3
Pair = tuple[Figures, Figures]
"""Of a ranking, and of the same in order of points."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which photos, which networks."""

    photos: str
    """Folder with sfm/PLACE/*, pairs/PLACE/*, distractors/*."""
    networks: tuple[str, ...]
    """NAME=WEIGHTS each, as train --model.backbone and --weights."""
    aliked: str
    """Weights of ALIKED-n16, as describe --features.weights."""
    size: int = 480
    """Longer side that networks see, pixels."""
    others: str = ""
    """Folder of photos of something else altogether, faces for example: one more background."""


def less_background(
    similar: np.ndarray, background: np.ndarray, queries: np.ndarray, k: int, weight: float
) -> np.ndarray:
    """s(q, x) - weight * mean of x's k largest similarities to a background. (The query's own mean changes no order.)

    Args: similar: (N, N) of the fold. background: (N, B).
    """
    return similar - weight * np.sort(background, axis=1)[:, -k:].mean(axis=1)


def reciprocal(
    similar: np.ndarray, background: np.ndarray, queries: np.ndarray, k1: int, k2: int, weight: float
) -> np.ndarray:
    """k-reciprocal encoding (Zhong et al., CVPR 2017): weight * d + (1 - weight) * Jaccard distance, negated."""
    far = 2 - 2 * similar
    far = far / far.max(axis=1, keepdims=True)
    order = np.argsort(far, axis=1, kind="stable")
    own, half = (_mutual(order, k) for k in (k1, round(k1 / 2)))
    code = np.zeros_like(far)
    for row, near in enumerate(own):
        wide = near.union(*(half[other] for other in near if len(half[other] & near) > 2 / 3 * len(half[other])))
        some = sorted(wide)
        weights = np.exp(-far[row, some])
        code[row, some] = weights / weights.sum()
    code = code[order[:, :k2]].mean(axis=1)
    both = np.array([np.minimum(row, code).sum(axis=1) for row in code])
    return -(weight * far + (1 - weight) * (1 - both / (2 - both)))


def _mutual(order: np.ndarray, k: int) -> list[set[int]]:
    """Of each row, those among its k nearest that have it among theirs; itself too."""
    near = [set(row[: k + 1].tolist()) for row in order]
    return [{other for other in some if row in near[other]} for row, some in enumerate(near)]


def diffusion(
    similar: np.ndarray, background: np.ndarray, queries: np.ndarray, k: int, k_query: int, alpha: float, gamma: float
) -> np.ndarray:
    """Diffusion on the gallery's mutual neighbours (Iscen et al., CVPR 2017): f = (I - alpha S)^-1 y, y the query's
    nearest. Solved outright, which is what truncated and offline forms come near to."""
    found = np.full(similar.shape, -np.inf)
    power = np.maximum(similar, 0) ** gamma
    np.fill_diagonal(power, 0)
    for query in queries:
        rest = np.delete(np.arange(len(similar)), query)
        near = power[np.ix_(rest, rest)]
        kept = np.zeros(near.shape, dtype=bool)
        np.put_along_axis(kept, np.argsort(-near, axis=1)[:, :k], True, axis=1)
        near = np.where(kept & kept.T, near, 0)
        scale = np.maximum(near.sum(axis=1), 1e-12) ** -0.5
        start, first = np.zeros(len(rest)), np.argsort(-similar[query, rest])[:k_query]
        start[first] = power[query, rest][first]
        spread = np.linalg.solve(np.eye(len(rest)) - alpha * scale[:, None] * near * scale, start)
        found[query, rest] = spread + 1e-6 * similar[query, rest]  # what nothing reaches keeps its order
    return found


def _grid(**settings: Sequence[float]) -> list[dict[str, Any]]:
    return [dict(zip(settings, some, strict=True)) for some in product(*settings.values())]


WAYS: dict[str, tuple[Callable[..., np.ndarray], list[dict[str, Any]]]] = {
    "less the background": (less_background, _grid(k=(1, 3, 5, 10, 20, 50), weight=(0.25, 0.5, 0.75, 1.0))),
    "k-reciprocal": (reciprocal, _grid(k1=(3, 5, 10, 20), k2=(1, 3, 6), weight=(0.1, 0.3, 0.5, 0.7, 0.9))),
    "diffusion": (
        diffusion,
        _grid(k=(3, 5, 10, 20), k_query=(1, 3, 10), alpha=(0.5, 0.8, 0.9, 0.99), gamma=(1, 3, 8)),
    ),
}


def main(cfg: Config) -> None:
    """Run, print two tables a network."""
    torch.set_num_threads(1)
    photos, root = list_photos(Path(cfg.photos)), Path(cfg.photos)
    fold_of = deal(photos, FOLDS)
    in_fold = np.array([fold_of[place or str(path)] for path, place in photos])
    folds = [Fold.of(photos, np.flatnonzero(in_fold == fold)) for fold in range(FOLDS)]
    jpegs = stored(root, photos, 640)
    local = aliked_features(jpegs, cfg.aliked)
    files = sorted(path for path in Path(cfg.others).rglob("*.jpg")) if cfg.others else []
    more = [path.read_bytes() for path in files]
    for network in cfg.networks:
        vectors = frozen(network, cfg.size, 1, [*jpegs, *more]).astype(np.float64)
        seen = vectors[: len(jpegs)]
        similar = [seen[fold.rows] @ seen[fold.rows].T for fold in folds]
        begin = [measured(fold, own, local) for fold, own in zip(folds, similar, strict=True)]
        print(f"\n{network.partition('=')[0]}, {cfg.size} pixels: {told(begin, begin)}", flush=True)
        backgrounds = {
            name: [seen[fold.rows] @ of(at).T for at, fold in enumerate(folds)]
            for name, of in _backgrounds(photos, in_fold, seen, vectors[len(jpegs) :]).items()
        }
        backgrounds["the gallery itself"] = [own - 9 * np.eye(len(own)) for own in similar]  # but the photo
        compare_ways(folds, similar, backgrounds["distractors"], begin, local)
        compare_backgrounds(folds, similar, backgrounds, begin, local)


def compare_ways(
    folds: Sequence[Fold],
    similar: Sequence[np.ndarray],
    background: Sequence[np.ndarray],
    begin: Sequence[Pair],
    local: Sequence[Features],
) -> None:
    """Each way by the settings that are best on the other folds."""
    for name, (way, grid) in WAYS.items():
        tried = [
            [measured(fold, way(own, far, fold.queries, **settings), local) for settings in grid]
            for fold, own, far in zip(folds, similar, background, strict=True)
        ]
        for at, chosen_for in enumerate(("the ranking", "results in order")):
            best = [chosen(tried, fold, at) for fold in range(len(folds))]
            settings = "; ".join(" ".join(map(str, grid[one].values())) for one in best)
            row = told([rows[one] for rows, one in zip(tried, best, strict=True)], begin)
            print(f"{name}, chosen for {chosen_for}: {row} | {settings}", flush=True)


def compare_backgrounds(
    folds: Sequence[Fold],
    similar: Sequence[np.ndarray],
    backgrounds: Mapping[str, Sequence[np.ndarray]],
    begin: Sequence[Pair],
    local: Sequence[Features],
) -> None:
    """`less_background` by settings that suit the distractors, with other backgrounds as well."""
    for (name, background), (k, weight) in product(backgrounds.items(), ((5, 0.5), (10, 0.75))):
        row = [
            measured(fold, less_background(own, far, fold.queries, k, weight), local)
            for fold, own, far in zip(folds, similar, background, strict=True)
        ]
        print(f"less {name}, k {k}, weight {weight}: {told(row, begin)}", flush=True)


def _backgrounds(
    photos: Sequence[tuple[Path, str]], in_fold: np.ndarray, seen: np.ndarray, more: np.ndarray
) -> Mapping[str, Callable[[int], np.ndarray]]:
    """What each fold's photos are compared with: photos of the other folds, of the fold, or of something else."""
    places = np.array([place for _, place in photos], dtype=object)
    hard = np.array([path.parts[0] == "pairs" for path, _ in photos])
    first = np.zeros(len(photos), dtype=bool)
    first[np.unique(places.astype(str), return_index=True)[1]] = True
    some = {"distractors": places == "", "one photo a place": first & (places != ""), "hard pairs": hard}
    found: dict[str, Callable[[int], np.ndarray]] = {
        name: lambda fold, kept=kept: seen[(in_fold != fold) & kept] for name, kept in some.items()
    }
    if len(more):
        found["something else"] = lambda fold: more
    return found


def measured(fold: Fold, scores: np.ndarray, local: Sequence[Features]) -> Pair:
    """Figures of what (N, N) scores rank."""
    asked = scores[fold.queries].copy()
    asked[np.arange(len(asked)), fold.queries] = -np.inf
    rows = np.argsort(-asked, axis=1, kind="stable")[:, :-1]
    found = Neighbours(np.take_along_axis(asked, rows, axis=1).astype(np.float32), rows)
    return fold.figures(found), fold.figures(fold.in_order(found, "ALIKED", local))


def chosen(tried: list[list[Pair]], fold: int, at: int) -> int:
    """The settings that are best on all folds but this one. Args: at: 0 by the ranking, 1 by what is put in order."""
    others = [rows for number, rows in enumerate(tried) if number != fold]
    means = [np.concatenate([row[at].precision for row in rows]).mean() for rows in zip(*others, strict=True)]
    return int(np.argmax(means))


def told(rows: Sequence[Pair], begin: Sequence[Pair]) -> str:
    """mAP, what it gains (95 %), its gain of each fold, mAP of hard pairs: of the ranking, and in order."""
    cells = []
    for at in (0, 1):
        own, first = (Figures.pooled([row[at] for row in some]) for some in (rows, begin))
        low, high = own.interval(first)
        each = [row[at].means()["mAP"] - one[at].means()["mAP"] for row, one in zip(rows, begin, strict=True)]
        gain = own.means()["mAP"] - first.means()["mAP"]
        cells.append(
            f"{own.means()['mAP']:.3f} {gain:+.3f} ({low:+.3f} to {high:+.3f}) "
            f"[{' '.join(f'{value:+.3f}' for value in each)}] hard {own.means()['mAP/hard']:.3f}"
        )
    return " | ".join(cells)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
