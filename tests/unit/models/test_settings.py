"""Settings of the network: what is impossible is said, and names are those that the network knows."""

from __future__ import annotations

import pytest

from retrieval.models.settings import ModelConfig


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backbone": "resnet17"}, "Unknown backbone 'resnet17'"),
        ({"pooling": "max"}, "Unknown pooling 'max'. Choose one of: avg, gem, mac, rmac, grid"),
        ({"grid": 0}, "grid must be 1 or more, got 0"),
        ({"embedding_dim": 0}, "embedding_dim must be 1 or more, got 0"),
        ({"image_size": 16}, "image_size must be 32 or more"),
        ({"scales": ()}, "scales are \\(\\), expected one or more"),
        ({"scales": (1.0, 0.0)}, "above 0 and up to 4"),
        ({"whitening": "learned"}, "learned from a trained model's embeddings"),
        ({"whitening_dim": 8}, "with 8 dimensions"),
    ],
)
def test_impossible_settings_are_said_in_words(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelConfig(**settings)  # type: ignore[arg-type]
