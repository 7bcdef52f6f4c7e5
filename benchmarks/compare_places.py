"""Networks taken as they are, side by side on real places: at which size, at one scale or three, and re-ranked.

    python benchmarks/compare_places.py --photos ../shared/data/landmarks --networks mobilenet_v2=mobilenet_v2.pth \\
        resnet50=resnet50.pth timm:tf_efficientnet_lite0=lite0.safetensors --aliked aliked-n16.pth

Every photo of a place asks all others and the distractors. A row a network, a size and a number of scales: mAP and
recall@1 of its ranking, and of the same with the first 50 results in order of ALIKED's points on one plane; mAP of hard
pairs apart. Behind the mAP: the middle 95 % of it over places drawn anew, 1,000 times. ALIKED looks at 480 pixels,
whatever the network sees. What is best here is the starting point of training, not its end (`real_places.py`).
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.places_folds import Fold, list_photos
from benchmarks.places_systems import aliked_features, frozen, head, line_of, stored


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
    """Run, print a row each, return the figures of each ranking."""
    torch.set_num_threads(1)
    listed = list_photos(Path(cfg.photos))
    photos = Fold.of(listed, np.arange(len(listed)))
    jpegs = stored(Path(cfg.photos), listed, max(cfg.sizes))
    local = {"ALIKED": aliked_features(jpegs, cfg.aliked)}
    asked = photos.hard[photos.queries]
    print(f"{len(jpegs)} photos, {len(asked)} queries, {int(asked.sum())} of hard pairs")
    print(head(("network", "pixels", "scales"), [photos], local, ("CPU s a photo",)), flush=True)
    figures = []
    for network in cfg.networks:
        for size in cfg.sizes:
            for scales in cfg.scales:
                started = time.process_time()
                vectors = frozen(network, size, scales, jpegs)
                a_photo = (time.process_time() - started) / len(jpegs)
                named = (network.partition("=")[0], str(size), str(scales))
                line, ranked = line_of(named, [vectors], [photos], local, last=(f"{a_photo:.3f}",))
                figures.append(ranked.means())
                print(line, flush=True)
    return figures


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
