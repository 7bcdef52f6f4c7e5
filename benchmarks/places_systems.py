"""Systems on real places, fold by fold: their vectors, and a table of how they rank as they are and re-ranked.

Used by `real_places.py`; not run by itself. A system is the vectors of each fold's photos: of a network that is taken
as it is, of one that the fold's pipeline trained, or either with an adapter that was trained on the fold's tuples.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.places_folds import Figures, Fold
from ray_jobs.describe import network_of
from ray_jobs.presets import LEARNED, MULTI_SCALE
from retrieval.artifacts.embeddings import read_parts
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import MANIFEST, read_manifest
from retrieval.artifacts.tuples import TupleSet
from retrieval.geometry.extractors.aliked import Aliked
from retrieval.geometry.extractors.sift import sift
from retrieval.geometry.features import Features, extract
from retrieval.images.pixels import decode, encode_jpeg, fit
from retrieval.models import bundle
from retrieval.models.embedder import Embedder
from retrieval.models.settings import ModelConfig
from retrieval.training.adapters.fit import fit as fit_adapter
from retrieval.training.adapters.settings import AdaptConfig
from retrieval.training.adapters.vectors import Known, Side
from retrieval.training.group_mining import label_numbers
from retrieval.training.tuple_mining import choose_positives

System = list[np.ndarray]
"""(N, D) float32 of each fold, in the order of its rows."""


def stored(root: Path, photos: Sequence[tuple[Path, str]], size: int) -> list[bytes]:
    """The photos as a collection stores them, no larger than the size."""
    return [encode_jpeg(fit(decode((root / path).read_bytes())[0], size), quality=92) for path, _ in photos]


def sift_features(jpegs: Sequence[bytes]) -> list[Features]:
    """SIFT's local features of all photos, as `evaluate --rerank` takes them."""
    return [extract(jpeg, extractor=sift, max_features=LEARNED.max_features) for jpeg in jpegs]


def aliked_features(jpegs: Sequence[bytes], weights: str) -> list[Features]:
    """ALIKED's local features of all photos, by the pipeline's settings."""
    extractor = Aliked(network_of(dataclasses.replace(LEARNED, weights=weights)) or b"")
    how: dict[str, Any] = {"max_features": LEARNED.max_features, "max_side": LEARNED.max_side}
    return [extract(jpeg, extractor=extractor, **how) for jpeg in jpegs]


def frozen(network: str, size: int, scales: int, jpegs: Sequence[bytes]) -> np.ndarray:
    """(N, D) vectors of a network, NAME=WEIGHTS, taken as it is. Args: scales: 1, or 3 for those of the preset."""
    name, _, weights = network.partition("=")
    config = ModelConfig(backbone=name, pooling="gem", head="none", image_size=size, keep_aspect=True)
    config = dataclasses.replace(config, scales=MULTI_SCALE if scales == 3 else (1.0,))
    with tempfile.TemporaryDirectory() as temp:
        bundle.save_bundle(bundle.build(config, weights=weights), f"{temp}/model")
        return Embedder(f"{temp}/model", batch_size=16, precision="fp32", device="cpu").embed_jpegs(list(jpegs))


def of_pipeline(workspace: Folder, report: Mapping[str, Any], ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Of each system that a pipeline's report tells of, its vectors (N, D) of the photos with these ids."""
    by_model = {}
    for path in sorted(Path(str(workspace), "embeddings").iterdir()):
        folder = Folder.of(str(path))
        if folder.exists(MANIFEST):  # not what a run left undone
            by_model[read_manifest(folder).inputs["model"]] = folder
    found = {}
    for name in report["order"]:
        vectors = dict[str, np.ndarray]()
        for names, block in read_parts(by_model[report["systems"][name]["model"]]):
            vectors |= dict(zip(names, block, strict=True))
        found[name] = np.array([vectors[image_id] for image_id in ids])
    return found


def adapted(
    vectors: Sequence[np.ndarray], ids: Sequence[str], tuples: Sequence[TupleSet], folds: Sequence[Fold]
) -> dict[str, System]:
    """The vectors as they are, under "", and what each candidate of `adapt` makes of them, which is trained on each
    fold's tuples by the job's settings; its whitening is Lw.

    None is chosen or refused: the job needs two places or more that none was trained on, which so few do not leave.

    Args: vectors: (N, D) of all photos, whose names are `ids`, by the network of each fold.
    """
    at, config = {image_id: row for row, image_id in enumerate(ids)}, AdaptConfig()
    found: dict[str, System] = {"": [own[fold.rows] for own, fold in zip(vectors, folds, strict=True)]}
    for mined, own, fold in zip(tuples, vectors, folds, strict=True):
        known = _known(mined, own, at, config)
        for candidate in config.candidates:
            adapter = fit_adapter(candidate, known, config).adapter
            name = " + Lw" if candidate == "whitening" else f" + {candidate} adapter"
            found.setdefault(name, []).append(adapter(own[fold.rows]))
    return found


def _known(mined: TupleSet, vectors: np.ndarray, at: Mapping[str, int], config: AdaptConfig) -> Known:
    """All places that were mined, to train on."""
    rows = np.flatnonzero(mined.usable)
    own = np.full(len(mined.image_ids), -1)
    own[rows] = np.arange(len(rows))
    chosen = choose_positives(mined, "m3", seed=config.seed)
    asks = np.flatnonzero(chosen >= 0)
    pairs = [
        (own[query], own[row]) for query, some in zip(mined.queries, mined.candidates, strict=True) for row in some
    ]
    train = vectors[[at[mined.image_ids[row]] for row in rows]]
    return Known(
        train=Side(vectors=train, labels=label_numbers(mined.clusters[rows]), left_out=0),
        val=Side(vectors=train[:0], labels=np.empty(0, np.int64), left_out=0),
        pairs=np.array(pairs, dtype=np.int64).reshape(-1, 2),
        queries=own[mined.queries[asks]],
        positives=own[chosen[asks]],
    )


def head(named: Sequence[str], folds: Sequence[Fold], kinds: Iterable[str], last: Sequence[str] = ()) -> str:
    """The first two lines of a table of `line_of`."""
    ranked = ("mAP (95 %)", "recall@1", "hard")
    cells = [*named, *ranked, *(("against the first (95 %)", "each fold") if len(folds) > 1 else ())]
    cells += [f"{name}, {kind}" for kind in kinds for name in ranked]
    cells += last
    return f"| {' | '.join(cells)} |\n|{'---|' * len(cells)}"


def line_of(
    named: Sequence[str],
    system: System,
    folds: Sequence[Fold],
    features: Mapping[str, Sequence[Features]],
    *,
    num_expanded: int = 0,
    first: Figures | None = None,
    last: Sequence[str] = (),
) -> tuple[str, Figures]:
    """A line of the table, and the figures of the ranking.

    Args: named, last: its first and last cells. first: what the ranking is compared with.
    """
    found = [fold.search(vectors, num_expanded) for fold, vectors in zip(folds, system, strict=True)]
    each = [fold.figures(ranking) for fold, ranking in zip(folds, found, strict=True)]
    plain = Figures.pooled(each)
    cells = [*named, *_cells(plain)]
    if len(folds) > 1:
        cells += [_gain(plain, first), " ".join(f"{one.means()['mAP']:.3f}" for one in each)]
    for kind, local in features.items():
        ordered = [fold.in_order(ranking, kind, local) for fold, ranking in zip(folds, found, strict=True)]
        cells += _cells(Figures.pooled([fold.figures(one) for fold, one in zip(folds, ordered, strict=True)]))
    return f"| {' | '.join([*cells, *last])} |", plain


def _cells(figures: Figures) -> list[str]:
    means, (low, high) = figures.means(), figures.interval()
    return [f"{means['mAP']:.3f} ({low:.2f} to {high:.2f})", f"{means['recall@1']:.3f}", f"{means['mAP/hard']:.3f}"]


def _gain(figures: Figures, first: Figures | None) -> str:
    if first is None:
        return ""
    low, high = figures.interval(first)
    return f"{figures.means()['mAP'] - first.means()['mAP']:+.3f} ({low:+.3f} to {high:+.3f})"
