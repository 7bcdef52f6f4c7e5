"""Local features that several tests look at."""

from __future__ import annotations

import pytest

from retrieval.geometry.features import Features, extract
from tests.support.places import drawn_jpeg


@pytest.fixture(scope="session")
def photos() -> dict[tuple[int, int], Features]:
    """Two photos of one building, one of another."""
    return {key: extract(drawn_jpeg(*key), max_features=800) for key in ((0, 2), (0, 3), (1, 3))}
