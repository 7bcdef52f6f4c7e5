"""Time of an epoch of training with negatives re-mined, beside the same epoch without.

    python benchmarks/bench_train.py
    python benchmarks/bench_train.py --weights mobilenet_v2.pth --collection COLLECTION

Re-mining embeds a few photos of everybody from cached frozen features and searches all of them exactly; both times are
of the same epochs: processor time, or on a GPU time.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ray_jobs.presets import FACES_TRAIN
from retrieval.artifacts.collection import LocalCollection, localise
from retrieval.artifacts.folder import Folder
from retrieval.data.demo.faces import draw_collection
from retrieval.images.pixels import decode_stored
from retrieval.images.settings import PrepareConfig
from retrieval.models import bundle, network
from retrieval.models.engines.eager import pick_device
from retrieval.models.settings import ModelConfig
from retrieval.training.label_recipe import LabelRecipe
from retrieval.training.settings import TrainConfig
from retrieval.training.trainer import Trainer
from tests.support.workspace import make_collection


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What to train on."""

    weights: str = "none"
    """Weights file of the backbone, or none: random ones, which cost the same."""
    model: ModelConfig = field(default_factory=lambda: FACES_TRAIN.model)
    """Network; its last ten layers train."""
    loss: str = FACES_TRAIN.train.loss
    """As train --train.loss."""
    collection: str = ""
    """A sealed collection of labelled photos to train on; empty: people are drawn."""
    num_identities: int = 100
    """People drawn; 72 in 100 are trained on."""
    images_per_identity: int = 8
    """Photos of each."""
    epochs: int = 4
    """Epochs timed, after one that is not."""
    device: str = "auto"
    """auto: the GPU if there is one."""


def main(cfg: Config) -> float:
    """Run, print the table, return the ratio."""
    with tempfile.TemporaryDirectory() as temp:
        root = Path(temp)
        folder = Folder.of(cfg.collection) if cfg.collection else draw(cfg, root)
        local = localise(folder, root / "cache", ("train", "val"))
        net = bundle.build(cfg.model, weights=cfg.weights)
        if cfg.weights == "none":
            _measure_norms(net, local)
        # A rate at which nothing collapses: going back embeds them twice.
        train = TrainConfig(epochs=cfg.epochs + 1, views=2, learning_rate=1e-6, loss=cfg.loss)
        started = time.perf_counter()
        recipe = LabelRecipe(local, train, scratch=root / "scratch")
        trainer = Trainer(net, recipe, device=pick_device(cfg.device))
        prepared = time.perf_counter() - started
        clock = time.perf_counter if trainer.device.type == "cuda" else time.process_time
        trainer.history.append({"epoch": 0})  # which is not validated
        times = [epoch_of(trainer, recipe, number, clock) for number in range(1, cfg.epochs + 2)][1:]
    mine, steps = (statistics.median(each) for each in zip(*times, strict=True))
    ratios = [(mined + trained) / trained for mined, trained in times]
    print(f"{len(recipe.pool)} faces of {cfg.model.image_size} px, {cfg.model.backbone}, {cfg.loss}, {trainer.device}")
    for name, seconds in (("frozen features, once", prepared), ("mine", mine), ("train", steps)):
        print(f"{name:36}{seconds:>8.2f} s")
    ratio = statistics.median(ratios)
    shown = ", ".join(f"{each:.3f}" for each in ratios)
    print(f"with / without re-mining (aim <= 1.10){ratio:>7.3f}   (each epoch: {shown})")
    return ratio


def epoch_of(trainer: Trainer, recipe: LabelRecipe, number: int, clock: Callable[[], float]) -> tuple[float, float]:
    """Seconds of an epoch's mining, and of its steps."""
    started = clock()
    mined = recipe.mine(number, trainer)
    ready = clock()
    trainer.history.append(mined.report)
    trainer.train_on(mined)
    return ready - started, clock() - ready


@torch.no_grad()
def _measure_norms(net: network.EmbeddingNet, local: LocalCollection) -> None:
    """Set a random trunk's BatchNorm statistics from photos; with the initial ones all embeddings are one point."""
    for layer in net.trunk.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the plain mean of what it sees
    size = net.spec.config.image_size
    pixels = np.stack([decode_stored(jpeg, size) for jpeg in local.jpegs(range(min(64, len(local))))])
    net.trunk.train()
    net.trunk(net.normalise(torch.from_numpy(pixels)))
    net.trunk.eval()


def draw(cfg: Config, root: Path) -> Folder:
    """A sealed collection of drawn faces."""
    draw_collection(root / "drawn", num_identities=cfg.num_identities, images_per_identity=cfg.images_per_identity)
    folder = Folder.of(root / "collection")
    make_collection(folder, root / "drawn", PrepareConfig(crop="none", size=cfg.model.image_size))
    return folder


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
