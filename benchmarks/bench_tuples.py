"""Siamese training with photos batched by shape, beside the published loop of one photo at a time.

    python benchmarks/bench_tuples.py
    python benchmarks/bench_tuples.py --weights mobilenet_v2.pth

Both take the same tuples through the same network to the same gradients, and step; the largest difference is printed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval import images, model, tuples
from retrieval.losses import contrastive
from retrieval.model import EmbeddingNet, ModelConfig
from retrieval.tuple_training import TupleTrainConfig, TupleTrainer, parameter_groups

_SHAPES = ((362, 272), (272, 362), (362, 241))  # 4:3 both ways and 3:2, as cameras take them


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What to train on."""

    weights: str = "none"
    """Weights file of the backbone, or none: random ones, which cost the same."""
    backbone: str = "mobilenet_v2"
    """Network; all of it trains."""
    steps: int = 2
    """Steps of five tuples, seven photos each, timed in a round."""
    rounds: int = 3
    """Rounds; the middle one counts."""
    precision: str = "fp32"
    """Of the batched step: fp32, as the loop's, or auto: bf16 where the hardware has it (gradients then differ)."""


class Photos:
    """Noise of camera shapes, in memory: what is in a photo costs nothing."""

    def __init__(self, num: int) -> None:
        rng = np.random.default_rng(0)
        self.image_ids = np.array([f"{row // 4:04d}/{row % 4}" for row in range(num)], dtype=object)
        shapes = [_SHAPES[int(at)] for at in rng.integers(0, len(_SHAPES), size=num)]
        self._jpegs = [
            images.encode_jpeg(np.kron(rng.integers(0, 255, (46, 46, 3)), np.ones((8, 8, 1)))[:h, :w].astype(np.uint8))
            for h, w in shapes
        ]

    def __len__(self) -> int:
        return len(self.image_ids)

    def jpegs(self, rows: Sequence[int] | np.ndarray) -> list[bytes]:
        return [self._jpegs[int(row)] for row in rows]


def main(cfg: Config) -> float:
    """Run, print the table, return the ratio."""
    photos = Photos(120)
    labels = [str(name)[:4] for name in photos.image_ids]
    tables = tuples.labelled_tables(list(photos.image_ids), labels)
    known = tuples.as_set(*tables)
    config = ModelConfig(backbone=cfg.backbone, pooling="gem", head="none", image_size=362, keep_aspect=True)
    nets = [model.build(config, weights=cfg.weights) for _ in range(2)]
    if cfg.weights == "none":
        for net in nets:
            measure_statistics(net, photos)
    settings = TupleTrainConfig(epochs=1, precision=cfg.precision, val_distractors=0)  # type: ignore[arg-type]
    batched = TupleTrainer(nets[0], photos, known, settings)  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    rows = rng.permuted(np.tile(np.arange(len(photos)), (5 * cfg.steps, 1)), axis=1)[:, :7]
    difference = gradient_difference(batched, nets[1], rows[:5])
    loop = OneByOne(nets[1], photos)
    seconds: dict[str, list[float]] = {"one photo at a time": [], "batched by shape": []}
    for _ in range(cfg.rounds):
        for name, step in (
            ("one photo at a time", loop.train_on),
            ("batched by shape", lambda r: batched.train_on(r, 1)),
        ):
            started = time.perf_counter()
            step(rows)
            seconds[name].append((time.perf_counter() - started) / cfg.steps)
    ratio = statistics.median(a / b for a, b in zip(*seconds.values(), strict=True))
    print(f"{cfg.backbone}, long side 362, 5 tuples of 7 photos a step, {torch.get_num_threads()} threads")
    for name, each in seconds.items():
        print(f"  {name:<20} {statistics.median(each):7.2f} s a step")
    rounds = ", ".join(f"{a / b:.2f}" for a, b in zip(*seconds.values(), strict=True))
    print(f"  ratio {ratio:.2f} ({rounds}); the gradients differ by {difference:.1e} of their length")
    return ratio


def measure_statistics(net: EmbeddingNet, photos: Photos) -> None:
    """Set a random trunk's BatchNorm statistics from photos; with the initial ones all embeddings are one point."""
    for layer in net.trunk.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the plain mean of what it sees
    pixels = np.stack([images.decode_stored(jpeg, 160) for jpeg in photos.jpegs(range(32))])
    net.trunk.train()
    with torch.no_grad():
        net.trunk(net.normalise(torch.from_numpy(pixels)))
    net.trunk.eval()


def gradient_difference(batched: TupleTrainer, net: EmbeddingNet, rows: np.ndarray) -> float:
    """Length of the difference of the two gradients, as a part of the gradient's length."""
    batched.loss(rows).sum().backward()
    OneByOne(net, batched.local).backward(rows)  # type: ignore[arg-type]
    apart = total = 0.0
    for ours, theirs in zip(batched.net.parameters(), net.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None
        apart += float((ours.grad - theirs.grad).double().square().sum())
        total += float(theirs.grad.double().square().sum())
    return (apart / total) ** 0.5


class OneByOne:
    """The published loop: every photo alone, in float32, NCHW; gradients of the tuples add up."""

    def __init__(self, net: EmbeddingNet, photos: Photos) -> None:
        self.net, self.photos = net.to(memory_format=torch.contiguous_format).eval(), photos  # type: ignore[call-overload]
        self.optimiser = torch.optim.Adam(parameter_groups(net, 1e-6, 1e-6))

    def train_on(self, rows: np.ndarray) -> None:
        for start in range(0, len(rows), 5):
            self.optimiser.zero_grad(set_to_none=True)
            self.backward(rows[start : start + 5])
            self.optimiser.step()

    def backward(self, rows: np.ndarray) -> None:
        for own in rows:
            found = torch.cat([self.describe(int(row)) for row in own])
            contrastive(found[:1], found[None, 1:], torch.arange(len(own) - 1) == 0, 0.7).sum().backward()

    def describe(self, row: int) -> Tensor:
        pixels = torch.from_numpy(images.decode_fit(self.photos.jpegs([row])[0], 362))[None]
        return self.net(self.net.normalise(pixels).contiguous())


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
