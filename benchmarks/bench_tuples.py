"""Siamese training with photos batched by shape, beside the published loop of one photo at a time.

    python benchmarks/bench_tuples.py
    python benchmarks/bench_tuples.py --weights mobilenet_v2.pth --source PLACES --distractors OTHERS

Both take the same mined tuples through the same network to the same gradients, and step. How much is spared depends on
how many negatives lie within the margin, which is printed: with random weights, on drawn noise, all of them do. The
difference of the gradients is rounding: the loop's own, from the loop in float64, stands beside it.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from retrieval.artifacts.tuples import as_set
from retrieval.geometry import tuples
from retrieval.images.pixels import decode, decode_fit, decode_stored, encode_jpeg, fit
from retrieval.models import bundle
from retrieval.models.network import EmbeddingNet
from retrieval.models.settings import ModelConfig, Precision
from retrieval.training.losses import contrastive
from retrieval.training.settings import TupleTrainConfig
from retrieval.training.trainer import Trainer
from retrieval.training.tuple_recipe import TupleRecipe, parameter_groups

_SHAPES = ((362, 272), (272, 362), (362, 241))  # 4:3 both ways and 3:2, as cameras take them


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What to train on."""

    weights: str = "none"
    """Weights file of the backbone, or none: random ones, which cost the same."""
    source: str = ""
    """Folder of photos, one subfolder a place, searched through; empty: noise."""
    distractors: str = ""
    """Folder of photos of other things."""
    backbone: str = "mobilenet_v2"
    """Network; all of it trains."""
    steps: int = 2
    """Steps of five tuples, seven photos each, timed in a round."""
    rounds: int = 3
    """Rounds; the middle one counts."""
    margin: float = 0.7
    """Of the loss."""
    precision: Precision = "fp32"
    """Of the batched step: fp32, as the loop's, or auto: bf16 where the hardware has it (gradients then differ)."""


class Photos:
    """Photos in memory, as ingest stores them, with the place that each shows."""

    def __init__(self, named: Sequence[tuple[str, str | None, bytes]]) -> None:
        """Args: named: image_id, place (None: of nothing else here), JPEG."""
        self.image_ids = np.array([image_id for image_id, _, _ in named], dtype=object)
        self.places = [place for _, place, _ in named]
        self._jpegs = [jpeg for _, _, jpeg in named]

    def __len__(self) -> int:
        return len(self.image_ids)

    def jpegs(self, rows: Sequence[int] | np.ndarray) -> list[bytes]:
        return [self._jpegs[int(row)] for row in rows]


def noise(num: int) -> Iterator[tuple[str, str, bytes]]:
    """Of camera shapes; what is in a photo costs nothing."""
    rng = np.random.default_rng(0)
    for row in range(num):
        h, w = _SHAPES[int(rng.integers(0, len(_SHAPES)))]
        pixels = np.kron(rng.integers(0, 255, (46, 46, 3)), np.ones((8, 8, 1)))[:h, :w].astype(np.uint8)
        yield f"{row // 4:04d}/{row % 4}", f"{row // 4:04d}", encode_jpeg(pixels)


def found_below(folder: Path, *, labelled: bool) -> Iterator[tuple[str, str | None, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            jpeg = encode_jpeg(fit(decode(path.read_bytes())[0], 362))
            yield path.relative_to(folder).as_posix(), path.parent.name if labelled else None, jpeg


def main(cfg: Config) -> float:
    """Run, print the table, return the ratio."""
    named: list[tuple[str, str | None, bytes]] = list(noise(120))
    if cfg.source:
        named = list(found_below(Path(cfg.source), labelled=True))
        named += found_below(Path(cfg.distractors), labelled=False) if cfg.distractors else []
    photos = Photos(sorted(named, key=lambda photo: photo[0]))  # as the tuples name them
    known = as_set(*tuples.labelled_tables(list(photos.image_ids), photos.places))
    config = ModelConfig(backbone=cfg.backbone, pooling="gem", head="none", image_size=362, keep_aspect=True)
    nets = [bundle.build(config, weights=cfg.weights) for _ in range(2)]
    if cfg.weights == "none":
        for net in nets:
            measure_statistics(net, photos)
    settings = TupleTrainConfig(
        epochs=1,
        margin=cfg.margin,
        precision=cfg.precision,
        val_distractors=0,
        queries_per_epoch=5 * cfg.steps,
    )
    recipe = TupleRecipe(photos, known, settings)  # type: ignore[arg-type]
    batched = Trainer(nets[0], recipe)
    mined = recipe.mine(1)
    rows = mined.rows
    recipe.losses(rows[:5], mined.idle[:5]).sum().backward()
    ours = gradient_of(batched.net)
    loop = OneByOne(nets[1], photos, cfg.margin)
    loop.backward(rows[:5])
    theirs = gradient_of(loop.net)
    exact = OneByOne(copy.deepcopy(loop.net).double(), photos, cfg.margin)
    exact.net.zero_grad(set_to_none=True)
    exact.backward(rows[:5])
    truth = gradient_of(exact.net)
    seconds: dict[str, list[float]] = {"one photo at a time": [], "batched by shape": []}
    for _ in range(cfg.rounds):
        for name, step in (
            ("one photo at a time", lambda: loop.train_on(rows)),
            ("batched by shape", lambda: batched.train_on(mined)),
        ):
            started = time.perf_counter()
            step()
            seconds[name].append((time.perf_counter() - started) / cfg.steps)
    ratio = statistics.median(a / b for a, b in zip(*seconds.values(), strict=True))
    print(f"{cfg.backbone}, long side 362, 5 tuples of 7 photos a step, {torch.get_num_threads()} threads")
    for name, each in seconds.items():
        print(f"  {name:<20} {statistics.median(each):7.2f} s a step")
    rounds = ", ".join(f"{a / b:.2f}" for a, b in zip(*seconds.values(), strict=True))
    within = mined.report["train/negatives_within_margin"]
    print(f"  ratio {ratio:.2f} ({rounds}); {within:.0%} of negatives within the margin")
    apart = [float((a - b).norm() / b.norm()) for a, b in ((ours, theirs), (ours, truth), (theirs, truth))]
    print(
        f"  gradients differ by {apart[0]:.1e} of their length; from float64's the batched by {apart[1]:.1e}, "
        f"the loop's by {apart[2]:.1e}"
    )
    return ratio


def measure_statistics(net: EmbeddingNet, photos: Photos) -> None:
    """Set a random trunk's BatchNorm statistics from photos; with the initial ones all embeddings are one point."""
    for layer in net.trunk.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the plain mean of what it sees
    pixels = np.stack([decode_stored(jpeg, 160) for jpeg in photos.jpegs(range(32))])
    net.trunk.train()
    with torch.no_grad():
        net.trunk(net.normalise(torch.from_numpy(pixels)))
    net.trunk.eval()


def gradient_of(net: EmbeddingNet) -> Tensor:
    """All of it, (num,) float64."""
    return torch.cat([p.grad.double().flatten() for p in net.parameters() if p.grad is not None])


class OneByOne:
    """The published loop: every photo alone, in float32, NCHW; gradients of the tuples add up."""

    def __init__(self, net: EmbeddingNet, photos: Photos, margin: float) -> None:
        self.margin = margin
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
            contrastive(found[:1], found[1:2], found[None, 2:], self.margin).sum().backward()

    def describe(self, row: int) -> Tensor:
        pixels = torch.from_numpy(decode_fit(self.photos.jpegs([row])[0], 362))[None]
        x = self.net.normalise(pixels).contiguous().to(next(self.net.parameters()).dtype)
        return self.net(x)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
