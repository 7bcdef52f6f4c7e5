"""Sets that cannot be drawn are refused in words."""

from __future__ import annotations

import pytest

from retrieval.data.demo.settings import DemoConfig, SceneConfig


@pytest.mark.parametrize(
    "change", [{"num_identities": 0}, {"images_per_identity": 0}, {"seed": -1}, {"size": (178, 20)}]
)
def test_impossible_sets_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=r"Give at least|Use at least"):
        DemoConfig(**change)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="num_places is 0"):
        SceneConfig(num_places=0)
