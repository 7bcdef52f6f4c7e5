"""The same ResNet-50 by timm and by torchvision: equal embeddings, equal speed.

    python benchmarks/bench_timm.py
    python benchmarks/bench_timm.py --weights resnet50.pth     # torchvision's ImageNet weights

One file of weights, two bundles, one Embedder each, JPEG to embedding on one thread, in alternate rounds; the ratio is
of the medians of processor time. It prints the largest difference of two embeddings as well.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval.images.pixels import encode_jpeg
from retrieval.models import bundle
from retrieval.models.embedder import Embedder
from retrieval.models.engines.number_format import drawn_images
from retrieval.models.settings import ModelConfig, Precision

NAMES = {"torchvision": "resnet50", "timm": "timm:resnet50"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which weights, and how long to measure."""

    weights: str = "none"
    """Weights file in torchvision's names; none: random ones, the same for both."""
    precision: Precision = "fp32"
    """As of embed."""
    photos: int = 16
    """Photos at once."""
    rounds: int = 5
    """How often each is timed."""


def main(cfg: Config) -> float:
    """Run, print, return timm's time as a part of torchvision's."""
    jpegs = [encode_jpeg(image) for image in drawn_images(cfg.photos, 224, 224).numpy()]
    with tempfile.TemporaryDirectory() as temp:
        weights = cfg.weights
        if weights == "none":
            weights = str(Path(temp) / "random.safetensors")
            save_file(bundle.build(ModelConfig(backbone="resnet50")).trunk.state_dict(), weights)
        opened = {}
        for name, backbone in NAMES.items():
            config = ModelConfig(backbone=backbone, pooling="gem", head="none", image_size=224)
            bundle.save_bundle(bundle.build(config, weights=weights), f"{temp}/{name}")
            opened[name] = Embedder(f"{temp}/{name}", precision=cfg.precision, device="cpu", batch_size=cfg.photos)
    vectors = {name: each.embed_jpegs(jpegs) for name, each in opened.items()}
    seconds: dict[str, list[float]] = {name: [] for name in opened}
    for _ in range(cfg.rounds):
        for name, each in opened.items():
            started = time.process_time()
            each.embed_jpegs(jpegs)
            seconds[name].append(time.process_time() - started)
    took = {name: 1e3 * statistics.median(each) / len(jpegs) for name, each in seconds.items()}
    print(f"{len(jpegs)} drawn photos of 224 px, one thread, {cfg.precision}, {opened['timm'].format}")
    print("ms a photo: " + ", ".join(f"{name} {value:.1f}" for name, value in took.items()))
    apart = float(np.abs(vectors["timm"] - vectors["torchvision"]).max())
    ratio = took["timm"] / took["torchvision"]
    print(f"largest difference of two numbers {apart:.1e}; timm / torchvision {ratio:.3f}")
    return ratio


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
