"""Images a second of the Embedder from JPEGs, beside the forward pass alone of the same network on the same GPU.

    python benchmarks/bench_gpu.py

With decoding overlapped the first should come to at least 0.85 of the second. Without a GPU it says so and ends.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bench_embed import Config as EmbedConfig
from benchmarks.bench_embed import draw
from retrieval.images.pixels import decode_stored
from retrieval.models import bundle
from retrieval.models.embedder import Embedder
from retrieval.models.engines.eager import EagerNet
from retrieval.models.settings import ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What to embed."""

    backbone: str = "resnet50"
    """Network, with random weights."""
    size: int = 218
    """Side of the images, pixels."""
    num_images: int = 8192
    """Images embedded in a round; 128 drawn faces over and over."""
    batch_size: int = 256
    """Images in one forward pass."""
    rounds: int = 3
    """How often each is timed, in turn."""


def main(cfg: Config) -> float | None:
    """Run, print the table, return the ratio; None without a GPU."""
    if not torch.cuda.is_available():
        print("PyTorch finds no GPU here: nothing to measure.")
        return None
    drawn, _ = draw(EmbedConfig(size=cfg.size))
    jpegs = (drawn * -(-cfg.num_images // len(drawn)))[: cfg.num_images]
    net = bundle.build(ModelConfig(backbone=cfg.backbone, image_size=cfg.size))
    embedder = Embedder(net, device="cuda", batch_size=cfg.batch_size)
    network = EagerNet(net, torch.device("cuda"), "auto")
    pixels = torch.from_numpy(np.stack([decode_stored(jpeg, cfg.size) for jpeg in jpegs[: cfg.batch_size]])).cuda()

    def forward() -> None:
        for _ in range(-(-cfg.num_images // cfg.batch_size)):
            network.forward(pixels)

    embedder.embed_jpegs(jpegs[: 2 * cfg.batch_size])  # warm
    pairs = [(seconds(lambda: embedder.embed_jpegs(jpegs)), seconds(forward)) for _ in range(cfg.rounds)]
    ratio = statistics.median(alone / whole for whole, alone in pairs)
    print(f"{cfg.num_images} faces of {cfg.size} px, {cfg.backbone}, {torch.cuda.get_device_name()}, {embedder.format}")
    for name, column in (("Embedder, from JPEGs", 0), ("forward pass alone", 1)):
        print(f"{name:36}{cfg.num_images / statistics.median(pair[column] for pair in pairs):>10.0f} images/s")
    print(f"{'embedder / forward (aim >= 0.85)':36}{ratio:>10.2f}")
    return ratio


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds until the GPU is done."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
