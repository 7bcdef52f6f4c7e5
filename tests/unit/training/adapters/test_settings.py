"""Settings of adapters that make no sense are refused by name, before anything is read."""

from __future__ import annotations

from typing import Any

import pytest

from retrieval.training.adapters.settings import AdaptConfig


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"candidates": ()}, "candidates are \\[\\], expected one or more of: whitening, linear, residual"),
        ({"candidates": ("linear", "mlp")}, "'mlp'"),
        ({"epochs": 0}, "epochs must be 1 or more, got 0"),
        ({"hidden": 0}, "hidden must be 1 or more"),
        ({"max_photos": 0}, "max_photos must be 1 or more"),
        ({"max_val_photos": 0}, "max_val_photos must be 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"margin": 0.0}, "margin must be above 0"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more"),
        ({"least_gain": -1.0}, "least_gain must be 0 or more"),
        ({"shrinkage": 1.5}, "shrinkage must be from 0 to 1, got 1.5"),
        ({"loss": "quadruplet"}, "Unknown loss 'quadruplet'. Choose one of: .*triplet"),
    ],
)
def test_bad_settings(settings: dict[str, Any], refused: str) -> None:
    with pytest.raises(ValueError, match=refused):
        AdaptConfig(**settings)


def test_candidates_of_json_are_a_tuple_again() -> None:
    assert AdaptConfig(candidates=["linear"]).candidates == ("linear",)  # type: ignore[arg-type]
    assert AdaptConfig().candidates == ("whitening", "linear", "residual")
