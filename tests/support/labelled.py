"""A small trainer on the patterns of `patterns`, for tests of what trains by labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing

from retrieval.artifacts.collection import LocalCollection
from retrieval.models import bundle
from retrieval.models.network import EmbeddingNet
from retrieval.models.settings import ModelConfig
from retrieval.training.label_recipe import LabelRecipe
from retrieval.training.settings import TrainConfig
from retrieval.training.trainer import Trainer

NET = ModelConfig(backbone="resnet18", cut="layer2.1", image_size=64, embedding_dim=16)
TINY = TrainConfig(epochs=2, groups_per_batch=3, companions=2, images_per_identity=2, views=1, precision="fp32", seed=5)
RESULTS = ("tuples_sha256", "train/loss", "train/triplets", "train/spread", "train/negatives", "val/mAP")


def trainer(
    local: LocalCollection, scratch: Path, config: TrainConfig = TINY, net: ModelConfig = NET
) -> Trainer[Any, Any]:
    return Trainer(bundle.build(net), LabelRecipe(local, config, scratch=scratch))


def prepared(local: LocalCollection, scratch: Path, config: TrainConfig = TINY, net: ModelConfig = NET) -> LabelRecipe:
    """A recipe alone, ready to mine."""
    made = LabelRecipe(local, config, scratch=scratch)
    Trainer(bundle.build(net), made)
    return made


def results(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What must not depend on time or machine."""
    return [{key: value for key, value in epoch.items() if key in RESULTS} for epoch in history]


def weights(net: EmbeddingNet) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in net.state_dict().values()])
