"""Where a job stops trying."""

from __future__ import annotations

from typing import Any

import pytest

from ray_jobs.runtime.parallel.limits import Limits


@pytest.mark.parametrize(
    ("share", "photos", "most"), [(0.2, 1000, 200), (0.2, 12, 10), (0.0, 1000, 10), (1.0, 1000, 1000), (1.0, 3, 10)]
)
def test_a_share_of_the_photos_may_be_broken_and_a_few_always(share: float, photos: int, most: int) -> None:
    assert Limits(max_rejected=share).most_broken(photos) == most


@pytest.mark.parametrize(
    "settings",
    [
        {"max_rejected": 1.5},
        {"max_rejected": -0.1},
        {"part_seconds": 0.0},
        {"photo_seconds": -1.0},
        {"wait_seconds": -1.0},
    ],
)
def test_numbers_out_of_range_are_refused(settings: Any) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name} is {settings[name]:g}, expected"):
        Limits(**settings)
