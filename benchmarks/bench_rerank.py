"""Results put in order by geometry: what SIFT and learned features gain over the same ranking, and what they cost.

    python benchmarks/bench_rerank.py
    python benchmarks/bench_rerank.py --photos ../shared/data/landmarks --weights mobilenet_v2.pth \\
        --aliked aliked-n16.pth                                             # real photos, real weights

Every photo of a place asks all others and the distractors. The ranking is that of a network that is taken as it is
(GeM, no training); then the first results of each query are put in order by each kind of features, with as many of
them, at the same size, by the code that the job runs. Without photos: drawn places, and SIFT alone.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.places_folds import Figures, Fold, list_photos
from benchmarks.places_systems import frozen, stored
from ray_jobs.describe import network_of
from retrieval.data.demo.places import building, photograph, write_scenes
from retrieval.data.demo.settings import SceneConfig
from retrieval.geometry.extractors.aliked import Aliked
from retrieval.geometry.extractors.sift import sift
from retrieval.geometry.features import Extractor, Features, extract
from retrieval.geometry.matching.planes import verify_plane
from retrieval.geometry.settings import FeatureConfig
from retrieval.images.pixels import encode_jpeg
from retrieval.reports.sheets import MatchedPhotos, matches_jpg
from retrieval.search.rerank import rerank


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which photos, which networks, how many results."""

    photos: str = ""
    """Folder with sfm/PLACE/*, pairs/PLACE/*, distractors/*; empty: drawn places."""
    weights: str = "none"
    """Of MobileNet-V2; none: random ones."""
    aliked: str = ""
    """Weights of ALIKED-n16, as describe --features.weights; empty: only SIFT."""
    size: int = 480
    """Longer side of a photo, pixels, for the ranking and for features."""
    top: int = 50
    """Results of each query that are put in order."""
    max_features: int = 1024
    """Of each kind, a photo."""
    picture: str = ""
    """Only draw the points that match in two drawn photos of one place, by each kind, into this .jpg."""


def main(cfg: Config) -> dict[str, dict[str, float]]:
    """Run, print the table, return the figures of each row."""
    torch.set_num_threads(1)
    kinds: dict[str, Extractor] = {"SIFT": sift}
    if cfg.aliked:
        kinds["ALIKED-n16"] = Aliked(network_of(FeatureConfig(extractor="aliked", weights=cfg.aliked)) or b"")
    if cfg.picture:
        Path(cfg.picture).write_bytes(draw(cfg, kinds))
        return {}
    with tempfile.TemporaryDirectory() as temp:
        jpegs, photos = read(cfg, Path(temp))
        vectors = frozen(f"mobilenet_v2={cfg.weights}", cfg.size, 1, jpegs)
    queries, found = photos.queries, photos.search(vectors)
    print(f"{len(jpegs)} photos of {cfg.size} px, {len(queries)} queries, the first {cfg.top} of each put in order")
    print(f"{'':12}     mAP  recall@1   mAP of hard pairs   mAP of others   s a photo   ms a pair")
    rows = {"the ranking": told(photos.figures(found))}
    tell("the ranking", rows["the ranking"])
    for name, extractor in kinds.items():
        features, a_photo = describe(cfg, jpegs, extractor)
        counts, a_pair = count(features, queries, found.rows[:, : cfg.top])
        row = told(photos.figures(rerank(found, counts))) | {"s a photo": a_photo, "ms a pair": 1000 * a_pair}
        rows[name] = row
        tell(name, row)
    return rows


def read(cfg: Config, temp: Path) -> tuple[list[bytes], Fold]:
    """The photos, no larger than the size, as a collection stores them; and who asks whom: each all others."""
    if cfg.photos:
        root, listed = Path(cfg.photos), list_photos(Path(cfg.photos))
    else:
        scenes = SceneConfig(num_places=8, images_per_place=4, num_distractors=16, size=cfg.size)
        root = write_scenes(temp / "photos", scenes).parent
        paths = sorted(path for path in root.rglob("*") if path.suffix in {".jpg", ".png"})
        listed = [(path.relative_to(root), path.parent.name if "place" in path.parent.name else "") for path in paths]
    return stored(root, listed, cfg.size), Fold.of(listed, np.arange(len(listed)))


def told(figures: Figures) -> dict[str, float]:
    """mAP and recall@1, and mAP of hard pairs and of the other queries apart."""
    means, easy = figures.means(), figures.precision[~figures.hard]
    others = float(easy.mean()) if len(easy) else float("nan")
    return {"mAP": means["mAP"], "recall@1": means["recall@1"], "mAP hard": means["mAP/hard"], "mAP others": others}


def describe(cfg: Config, jpegs: Sequence[bytes], extractor: Extractor) -> tuple[list[Features], float]:
    """Features of all photos, and the seconds that one took."""
    started = time.process_time()
    found = [extract(jpeg, max_features=cfg.max_features, extractor=extractor) for jpeg in jpegs]
    return found, (time.process_time() - started) / len(jpegs)


def count(features: Sequence[Features], queries: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, float]:
    """(Q, top) matches that fit one geometry, and the seconds that a pair took."""
    started = time.process_time()
    counts = np.array(
        [[verify_plane(features[query], features[row]).num_inliers for row in own] for query, own in zip(queries, rows)]
    )
    return counts, (time.process_time() - started) / rows.size


def draw(cfg: Config, kinds: Mapping[str, Extractor]) -> bytes:
    """A picture of two photos of a drawn place, in other light and from elsewhere, with what matches by each kind."""
    scenes = SceneConfig(size=cfg.size)
    jpegs = (_drawn(scenes, 2), _drawn(scenes, 5))
    pairs = []
    for name, extractor in kinds.items():
        first, second = (extract(jpeg, max_features=cfg.max_features, extractor=extractor) for jpeg in jpegs)
        rows = verify_plane(first, second).matches
        points = first.keypoints[rows[:, 0], :2], second.keypoints[rows[:, 1], :2]
        pairs.append(MatchedPhotos(jpegs=jpegs, points=points, caption=name))
    return matches_jpg(pairs, title="One drawn place, two photos: the points that fit one geometry")


def _drawn(scenes: SceneConfig, number: int) -> bytes:
    return encode_jpeg(photograph(building(7, 0), scenes, 0, number))


def tell(name: str, row: dict[str, float]) -> None:
    cost = f"{row['s a photo']:12.3f}{row['ms a pair']:12.1f}" if "s a photo" in row else ""
    print(
        f"{name:12}{row['mAP']:8.4f}{row['recall@1']:10.4f}{row['mAP hard']:20.4f}{row['mAP others']:16.4f}{cost}",
        flush=True,
    )


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
