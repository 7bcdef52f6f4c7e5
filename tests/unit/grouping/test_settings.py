"""Settings of grouping that cannot be are refused in a sentence."""

from __future__ import annotations

import pytest

from retrieval.grouping.settings import GroupingConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 1.5}, "threshold is 1.5, expected a cosine"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"neighbours": 0}, "neighbours is 0, expected 1 or more"),
        ({"duplicate_neighbours": -1}, "duplicate_neighbours is -1"),
        ({"duplicate_likeness": 0.0}, "duplicate_likeness is 0.0"),
    ],
)
def test_a_value_out_of_range_is_named(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GroupingConfig(**settings)  # type: ignore[arg-type]


def test_the_ends_of_each_range_are_in_it() -> None:
    GroupingConfig(threshold=-1.0, neighbours=1, duplicate_neighbours=1, duplicate_likeness=1.0)
    assert GroupingConfig(threshold=1.0).threshold == 1.0
