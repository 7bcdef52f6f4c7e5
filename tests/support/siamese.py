"""A small siamese trainer on drawn places, for tests of what trains by tuples."""

from __future__ import annotations

from typing import Any

from retrieval.models import bundle
from retrieval.models.settings import ModelConfig
from retrieval.training.settings import TupleTrainConfig
from retrieval.training.trainer import Trainer
from retrieval.training.tuple_recipe import TupleRecipe
from retrieval.training.workers import Rank
from tests.support.tuples import Photos, known

NET = ModelConfig(cut="features.4", pooling="gem", head="none", image_size=96, keep_aspect=True)


def config(**settings: object) -> TupleTrainConfig:
    usual = {"epochs": 2, "learning_rate": 1e-4, "image_size": 96, "precision": "fp32", "num_negatives": 3}
    return TupleTrainConfig(**(usual | settings))  # type: ignore[arg-type]


def recipe(**settings: object) -> TupleRecipe:
    photos = Photos()
    return TupleRecipe(photos, known(photos), config(**settings))  # type: ignore[arg-type]


def trainer(made: TupleRecipe, rank: Rank | None = None) -> Trainer[Any, Any]:
    return Trainer(bundle.build(NET, seed=1), made, rank=rank)
