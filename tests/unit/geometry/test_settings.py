"""Settings of reconstruction: what is impossible is said, what is at a limit passes."""

from __future__ import annotations

from typing import Any

import pytest

from retrieval.geometry.settings import MIN_LINK, FeatureConfig, ReconstructConfig

COUNTS = ("max_features", "num_words", "vocabulary_sample", "num_candidates", "min_shared")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        *[({name: 0}, f"{name} is 0, expected 1 or more") for name in COUNTS],
        ({"weak_inliers": 11}, "weak_inliers is 11 and strong_inliers 30, expected 12 <= weak_inliers"),
        ({"weak_inliers": 31}, "weak_inliers is 31 and strong_inliers 30, expected .* <= strong_inliers"),
        ({"rounds": -1}, "rounds is -1, expected 0"),
        ({"min_images": 1}, "min_images is 1, expected 2 or more"),
        ({"val_fraction": 1.0}, "val_fraction 1.0, expected 0 or more and less than 1"),
        ({"val_fraction": -0.1}, "val_fraction -0.1, expected 0 or more"),
    ],
)
def test_impossible_settings_are_said_in_words(settings: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ReconstructConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [
        dict.fromkeys(COUNTS, 1),
        {"weak_inliers": MIN_LINK, "strong_inliers": MIN_LINK},
        {"rounds": 0},
        {"min_images": 2},
        {"val_fraction": 0.0},
        {"val_fraction": 0.99},
    ],
)
def test_the_least_that_is_allowed_is_taken(settings: dict[str, float]) -> None:
    made = ReconstructConfig(**settings)  # type: ignore[arg-type]
    assert {name: getattr(made, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_features": 0}, "max_features is 0, expected 1 or more"),
        ({"max_side": 31}, "max_side is 31, expected 32 or more"),
        ({"extractor": "aliked"}, "extractor is aliked and weights '': aliked needs weights"),
        ({"weights": "w.pth"}, "extractor is sift and weights 'w.pth': .* sift has none"),
    ],
)
def test_features_that_cannot_be_taken_are_said_in_words(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FeatureConfig(**settings)
    FeatureConfig(extractor="aliked", weights="w.pth", max_features=1, max_side=32)
