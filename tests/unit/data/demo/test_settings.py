"""Sets that cannot be drawn are refused in words."""

from __future__ import annotations

import pytest

from retrieval.data.demo.settings import DemoConfig, SceneConfig


@pytest.mark.parametrize(
    "change",
    [{"num_identities": 0}, {"images_per_identity": 0}, {"seed": -1}, {"size": (178, 20)}, {"size": (47, 218)}],
)
def test_impossible_sets_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=r"Give at least|Use at least"):
        DemoConfig(**change)


@pytest.mark.parametrize(
    ("name", "least"), [("num_places", 1), ("images_per_place", 1), ("num_distractors", 0), ("size", 64), ("seed", 0)]
)
def test_nonsense_is_refused(name: str, least: int) -> None:
    with pytest.raises(ValueError, match=f"{name} is {least - 1}, expected {least} or more"):
        SceneConfig(**{name: least - 1})
    assert getattr(SceneConfig(**{name: least}), name) == least


def test_the_smallest_set_of_faces_can_be_drawn() -> None:
    config = DemoConfig(num_identities=1, images_per_identity=1, size=(48, 48))
    assert config.num_images == 1
    assert DemoConfig().num_images == 60 * 12 and DemoConfig(num_identities=3, images_per_identity=5).num_images == 15
