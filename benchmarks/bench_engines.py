"""Networks in onnxruntime beside eager PyTorch, and the whole Embedder beside its engine's bare forward pass.

    python benchmarks/bench_engines.py
    python benchmarks/bench_engines.py --mobilenet mobilenet_v2.pth --resnet resnet50.pth     # ImageNet's weights

All on one thread, in one process, in alternate rounds; a figure is the median of the rounds' processor time a photo, so
that a busy machine matters little. Eager is the plain network in float32 as it was trained; Embedder in PyTorch folds
BatchNorm and takes bfloat16 where the hardware has it. Beside the bare forward pass of the engine the Embedder decodes
JPEGs as well, here on the same clock; where there is a second core it does so meanwhile.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

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

from retrieval.images.pixels import encode_jpeg
from retrieval.models import bundle
from retrieval.models.embedder import Embedder
from retrieval.models.engines.number_format import drawn_images
from retrieval.models.network import EmbeddingNet, Network
from retrieval.models.pooling import l2n
from retrieval.models.settings import ModelConfig

FACES = ModelConfig(cut="features.13", pooling="grid", grid=3, image_size=160, flip=True)
PLACES = ModelConfig(backbone="resnet50", pooling="gem", head="none", image_size=224)
AIM_FACES, AIM_PLACES, AIM_RATE = 1.8, 1.4, 0.9
Work = Callable[[], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which weights, and how long to measure."""

    mobilenet: str = "none"
    """Weights file of MobileNet-V2. none: random ones, as fast in float32."""
    resnet: str = "none"
    """Weights file of ResNet-50."""
    batch: int = 16
    """Photos at once, beside one."""
    rounds: int = 5
    """How often each is timed."""
    seconds: float = 0.5
    """Of each in a round."""


def main(cfg: Config) -> dict[str, float]:
    """Run, print the tables, return the ratios."""
    torch.set_num_threads(1)
    print(f"one thread, {cfg.rounds} rounds, ms of processor time a photo")
    print(f"{'':44}{'eager':>9}{'Embedder, PyTorch':>34}{'onnxruntime':>13}{'eager / it':>12}")
    ratios: dict[str, float] = {}
    nets: dict[str, Network] = {}
    for name, config, weights, aim in (
        ("MobileNet-V2 160 px, mirror", FACES, cfg.mobilenet, AIM_FACES),
        ("ResNet-50 224 px", PLACES, cfg.resnet, AIM_PLACES),
    ):
        nets[name] = net = bundle.build(config, weights=weights)
        in_torch, exported = Embedder(net, engine="torch", **ALONE), Embedder(net, engine="onnxruntime", **ALONE)
        for batch in (1, cfg.batch):
            pixels = drawn_images(batch, config.image_size, config.image_size).numpy()
            work: dict[str, Work] = {
                "eager": lambda net=net, pixels=pixels: eager(net, pixels),
                "torch": lambda it=in_torch, pixels=pixels: it.embed_pixels(pixels),
                "onnxruntime": lambda it=exported, pixels=pixels: it.embed_pixels(pixels),
            }
            took = {key: 1e3 * value / batch for key, value in timed(cfg, work).items()}
            ratio = ratios[f"{name}, {batch}"] = took["eager"] / took["onnxruntime"]
            shown = f"{in_torch.format} {took['torch']:.2f}"
            print(f"{f'{name}, {batch} (aim >= {aim})':44}{took['eager']:>9.2f}{shown:>34}", end="")
            print(f"{took['onnxruntime']:>13.2f}{ratio:>12.2f}")
        cosine = (in_torch.embed_pixels(pixels) * exported.embed_pixels(pixels)).sum(axis=1).min()
        print(f"    cosine of both engines, least: {cosine:.6f}")
    print(f"\n{'photos a second':44}{'Embedder':>9}{'bare forward':>14}{f'ratio (aim >= {AIM_RATE})':>18}")
    for name, net in nets.items():
        ratios[name] = beside_bare(cfg, name, net)
    return ratios


ALONE = {"device": "cpu", "num_threads": 1}


def beside_bare(cfg: Config, name: str, net: Network) -> float:
    """JPEGs through the whole Embedder, and as many pixels through its engine alone."""
    embedder = Embedder(net, engine="onnxruntime", **ALONE)
    side = embedder.spec.config.image_size
    pixels = drawn_images(cfg.batch, side, side).numpy()
    jpegs = [encode_jpeg(image) for image in pixels]
    step = len(embedder._batches(jpegs)[0])
    work: dict[str, Work] = {
        "whole": lambda: embedder.embed_jpegs(jpegs),
        "bare": lambda: [embedder.embed_pixels(pixels[at : at + step]) for at in range(0, len(pixels), step)],
    }
    took = timed(cfg, work)
    ratio = took["bare"] / took["whole"]
    print(f"{name:44}{cfg.batch / took['whole']:>9.1f}{cfg.batch / took['bare']:>14.1f}{ratio:>18.2f}", flush=True)
    return ratio


@torch.no_grad()
def eager(net: EmbeddingNet, pixels: np.ndarray) -> np.ndarray:
    """The plain network, in PyTorch's own memory layout."""
    x = net.normalise(torch.from_numpy(pixels)).contiguous()
    return (l2n(net(x) + net(x.flip(3))) if net.spec.config.flip else net(x)).numpy()


def timed(cfg: Config, work: dict[str, Work]) -> dict[str, float]:
    """Processor seconds of one call of each: the median of the rounds."""
    for one in work.values():
        one()  # warm
    found: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(cfg.rounds):
        for name, one in work.items():
            started, calls = time.process_time(), 0
            while time.process_time() - started < cfg.seconds:
                one()
                calls += 1
            found[name].append((time.process_time() - started) / calls)
    return {name: statistics.median(values) for name, values in found.items()}


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
