"""Settings refuse what cannot be, take what just can, and are read without anything heavy."""

from __future__ import annotations

import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

from retrieval.training import settings
from retrieval.training.losses import LOSSES
from retrieval.training.settings import TrainConfig, TupleTrainConfig, WhitenConfig

TINY = 1e-9
# The least (or most) that is taken, and what lies just beyond.
BOUNDS: list[tuple[type, str, float, float]] = [
    *((TrainConfig, name, 1, 0) for name in ("epochs", "groups_per_batch", "companions", "images_per_identity")),
    *((TrainConfig, name, 0, -1) for name in ("views", "pool_size", "warmup_epochs")),
    (TrainConfig, "weight_decay", 0.0, -TINY),
    *((TrainConfig, name, TINY, 0.0) for name in ("learning_rate", "margin")),
    *(
        (TupleTrainConfig, name, 1, 0)
        for name in ("epochs", "tuples_per_step", "num_negatives", "queries_per_epoch", "pool_size")
    ),
    *((TupleTrainConfig, name, TINY, 0.0) for name in ("learning_rate", "margin", "max_scale_change")),
    *((TupleTrainConfig, name, 0.0, -TINY) for name in ("weight_decay", "decay", "min_shared")),
    (TupleTrainConfig, "val_distractors", 0, -1),
    (TupleTrainConfig, "image_size", 32, 31),
    (WhitenConfig, "dim", 0, -1),
    (WhitenConfig, "max_pairs", 1, 0),
    (WhitenConfig, "shrinkage", 0.0, -TINY),
    (WhitenConfig, "shrinkage", 1.0, 1 + TINY),
    (WhitenConfig, "power", TINY, 0.0),
    (WhitenConfig, "power", 1.0, 1 + TINY),
]


@pytest.mark.parametrize(("config", "name", "taken", "refused"), BOUNDS)
def test_each_bound_is_where_it_is_said(config: Any, name: str, taken: float, refused: float) -> None:
    assert getattr(config(**{name: taken}), name) == taken
    with pytest.raises(ValueError, match=name):
        config(**{name: refused})


@pytest.mark.parametrize(
    ("config", "name", "known"),
    [
        (TrainConfig, "negatives", ("random", "semi-hard", "hardest")),
        (TupleTrainConfig, "loss", ("contrastive", "triplet")),
        (TupleTrainConfig, "positives", ("m1", "m2", "m3")),
        (WhitenConfig, "method", ("learned", "pca")),
    ],
)
def test_names_are_those_of_the_list(config: Any, name: str, known: tuple[str, ...]) -> None:
    for each in known:
        assert getattr(config(**{name: each}), name) == each
    with pytest.raises(ValueError, match=f"Unknown .*'m4'.*{known[0]}.*{known[-1]}"):
        config(**{name: "m4"})


def test_every_loss_of_the_table_is_a_choice_of_the_flag() -> None:
    assert typing.get_args(typing.get_type_hints(TupleTrainConfig)["loss"]) == tuple(LOSSES)
    assert typing.get_args(settings.Strategy) == settings.STRATEGIES


def test_defaults_of_tuples_are_the_published_ones() -> None:
    """arXiv:1711.02512, section 5.1."""
    config = TupleTrainConfig()
    assert (config.loss, config.learning_rate, config.decay, config.weight_decay) == ("contrastive", 1e-6, 0.01, 1e-6)
    assert (config.queries_per_epoch, config.pool_size, config.num_negatives, config.image_size) == (
        2000,
        20000,
        5,
        362,
    )
    assert (config.tuples_per_step, config.negatives, config.positives, config.unfreeze_layers) == (5, "N2", "m3", -1)
    assert (config.min_shared, config.max_scale_change) == (0.2, 1.5)


def test_settings_are_read_without_pytorch() -> None:
    code = "import sys, retrieval.training.settings; print(*sorted({'torch', 'scipy', 'pyarrow'} & set(sys.modules)))"
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
