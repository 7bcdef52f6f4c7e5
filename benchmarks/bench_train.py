"""Time of an epoch of training with negatives re-mined, beside the same epoch without.

    python benchmarks/bench_train.py
    python benchmarks/bench_train.py --weights mobilenet_v2.pth

Re-mining embeds the whole pool from cached frozen features and searches it exactly; both times are of the same epochs.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

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
    backbone: str = "mobilenet_v2"
    """Network; its last ten layers train."""
    size: int = 128
    """Side of the images, pixels."""
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
        local = localise(draw(cfg, root), root / "cache", ("train", "val"))
        net = bundle.build(ModelConfig(backbone=cfg.backbone, image_size=cfg.size), weights=cfg.weights)
        if cfg.weights == "none":
            _measure_norms(net, local)
        # A rate at which nothing collapses: going back embeds the pool twice.
        train = TrainConfig(epochs=cfg.epochs + 1, views=2, learning_rate=1e-6)
        started = time.perf_counter()
        recipe = LabelRecipe(local, train, scratch=root / "scratch")
        trainer = Trainer(net, recipe, device=pick_device(cfg.device))
        prepared = time.perf_counter() - started
        history = list(trainer.run())[2:]
    mine, steps = (statistics.median(epoch[f"seconds/{name}"] for epoch in history) for name in ("mine", "train"))
    ratios = [(epoch["seconds/mine"] + epoch["seconds/train"]) / epoch["seconds/train"] for epoch in history]
    print(f"{len(recipe.pool)} drawn faces of {cfg.size} px, {cfg.backbone}, {cfg.epochs} epochs, {trainer.device}")
    for name, seconds in (("frozen features, once", prepared), ("mine", mine), ("train", steps)):
        print(f"{name:36}{seconds:>8.2f} s")
    ratio = statistics.median(ratios)
    shown = ", ".join(f"{each:.3f}" for each in ratios)
    print(f"with / without re-mining (aim <= 1.15){ratio:>7.3f}   (each epoch: {shown})")
    return ratio


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
    make_collection(folder, root / "drawn", PrepareConfig(crop="none", size=cfg.size))
    return folder


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
