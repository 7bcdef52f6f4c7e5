"""Networks taken as they are, side by side on real places: at which size, at one scale or three, and re-ranked.

    python benchmarks/compare_places.py --photos ../shared/data/landmarks --networks mobilenet_v2=mobilenet_v2.pth \\
        resnet50=resnet50.pth timm:tf_efficientnet_lite0=lite0.safetensors --aliked aliked-n16.pth

Every photo of a place asks all others and the distractors. A row a network, a size and a number of scales: mAP and
recall@1 of its ranking, and of the same with the first 50 results in order of ALIKED's points on one plane; mAP of hard
pairs apart. Behind the mAP: the middle 95 % of it over places drawn anew, 1,000 times. ALIKED looks at 480 pixels,
whatever the network sees. What is best here is the starting point of training, not its end (`real_places.py`).
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import bench_rerank
from benchmarks.bench_rerank import Photos, figures, others
from ray_jobs.describe import network_of
from ray_jobs.presets import LEARNED, MULTI_SCALE, RERANKED
from retrieval.evaluation.metrics import ranked_metrics
from retrieval.geometry.extractors.aliked import Aliked
from retrieval.geometry.features import Features, extract
from retrieval.geometry.matching.planes import verify_plane
from retrieval.models import bundle
from retrieval.models.embedder import Embedder
from retrieval.models.settings import ModelConfig
from retrieval.search.index import flat_search
from retrieval.search.ranking import Neighbours
from retrieval.search.rerank import rerank

_DRAWS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which photos, which networks."""

    photos: str
    """Folder with sfm/PLACE/*, pairs/PLACE/*, distractors/*."""
    networks: tuple[str, ...]
    """NAME=WEIGHTS each, as train --model.backbone and --weights."""
    aliked: str
    """Weights of ALIKED-n16, as describe --features.weights."""
    sizes: tuple[int, ...] = (256, 480, 640)
    """Longer sides that the networks see, pixels; photos are stored at the largest."""
    scales: tuple[int, ...] = (1, 3)
    """1: a photo as it is; 3: at the scales of the preset."""


def main(cfg: Config) -> list[dict[str, float]]:
    """Run, print a row each, return the figures."""
    torch.set_num_threads(1)
    stored = bench_rerank.Config(photos=cfg.photos, size=max(cfg.sizes))
    with tempfile.TemporaryDirectory() as temp:
        photos = bench_rerank.read(stored, Path(temp))
        queries = np.flatnonzero([photos.places.count(place) > 1 and bool(place) for place in photos.places])
        local = describe(cfg, photos.jpegs)
        print(f"{len(photos.jpegs)} photos, {len(queries)} queries, {int(photos.hard[queries].sum())} of hard pairs")
        ranked = "mAP (95 %) | recall@1 | hard"
        print(f"| network | px | scales | {ranked} | re-ranked: {ranked} | s a photo |")
        print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
        counted: dict[tuple[int, int], int] = {}
        return [
            row(cfg, photos, queries, local, counted, network, size, scales, Path(temp))
            for network in cfg.networks
            for size in cfg.sizes
            for scales in cfg.scales
        ]


def describe(cfg: Config, jpegs: Sequence[bytes]) -> list[Features]:
    """ALIKED's features of all photos, by the pipeline's settings."""
    extractor = Aliked(network_of(dataclasses.replace(LEARNED, weights=cfg.aliked)) or b"")
    how = {"max_features": LEARNED.max_features, "max_side": LEARNED.max_side}
    return [extract(jpeg, extractor=extractor, **how) for jpeg in jpegs]


def row(
    cfg: Config,
    photos: Photos,
    queries: np.ndarray,
    local: Sequence[Features],
    counted: dict[tuple[int, int], int],
    network: str,
    size: int,
    scales: int,
    temp: Path,
) -> dict[str, float]:
    """One network at one size. Args: counted: points of pairs that were verified before, kept from row to row."""
    name, _, weights = network.partition("=")
    folder = temp / f"{name.replace(':', '-')}-{size}-{scales}"
    config = ModelConfig(backbone=name, pooling="gem", head="none", image_size=size, keep_aspect=True)
    config = dataclasses.replace(config, scales=MULTI_SCALE if scales == 3 else (1.0,))
    bundle.save_bundle(bundle.build(config, weights=weights), str(folder))
    started = time.process_time()
    vectors = Embedder(str(folder), batch_size=16, precision="fp32", device="cpu").embed_jpegs(list(photos.jpegs))
    a_photo = (time.process_time() - started) / len(photos.jpegs)
    found = others(flat_search(vectors)(vectors[queries], len(vectors)), queries)
    counts = np.zeros((len(queries), RERANKED), dtype=np.int64)
    for at, query in enumerate(queries.tolist()):
        for column, other in enumerate(found.rows[at, :RERANKED].tolist()):
            if (query, other) not in counted:
                counted[query, other] = verify_plane(local[query], local[other]).num_inliers
            counts[at, column] = counted[query, other]
    ordered = rerank(found, counts)
    first, second = figures(photos, queries, found), figures(photos, queries, ordered)
    said = [
        f"{of['mAP']:.3f} ({interval(photos, queries, ranked)}) | {of['recall@1']:.3f} | {of['mAP hard']:.3f}"
        for of, ranked in ((first, found), (second, ordered))
    ]
    print(f"| {name} | {size} | {scales} | {said[0]} | {said[1]} | {a_photo:.3f} |", flush=True)
    return first | {f"{key}, re-ranked": value for key, value in second.items()}


def interval(photos: Photos, queries: np.ndarray, found: Neighbours) -> str:
    """The middle 95 % of mAP over places drawn anew."""
    labels = [place or None for place in photos.places]
    each = np.array(
        [
            ranked_metrics(found.rows[at : at + 1], [labels[query]], labels, exclude_rows=queries[at : at + 1]).values[
                "mAP"
            ]
            for at, query in enumerate(queries)
        ]
    )
    places = np.unique([photos.places[query] for query in queries], return_inverse=True)[1]
    of_place = [np.flatnonzero(places == place) for place in range(places.max() + 1)]
    rng = np.random.default_rng(0)
    drawn = [
        each[np.concatenate([of_place[place] for place in rng.integers(0, len(of_place), len(of_place))])].mean()
        for _ in range(_DRAWS)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{low:.2f} to {high:.2f}"


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
