"""How a source is divided is refused in words where it cannot be, before anything is read."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest

from retrieval.data.listing import LAYOUTS
from retrieval.data.settings import Layout, SplitConfig


def split(name: str, value: Any) -> SplitConfig:
    return SplitConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [("test_fraction", (0.0, 0.99, 1.0), (-0.1, 1.5)), ("val_fraction", (0.0, 0.99), (-0.1, 1.0, 1.5))],
)
def test_a_part_is_at_least_nothing_and_only_of_tests_all(name: str, good: tuple[float], bad: tuple[float]) -> None:
    for value in (*bad, math.nan):
        with pytest.raises(ValueError, match=rf"{name} is {value}, expected 0 "):
            split(name, value)
    assert all(getattr(split(name, value), name) == value for value in good)


def test_by_default_a_fifth_is_kept_for_testing_and_a_tenth_of_the_rest_for_choosing() -> None:
    config = SplitConfig()
    assert (config.test_fraction, config.val_fraction, config.seed) == (0.2, 0.1, 0)
    assert (config.keep_singles, config.honour_source) == (False, False)


def test_each_layout_that_can_be_asked_for_has_a_reader_and_each_reader_can_be_asked_for() -> None:
    assert set(get_args(Layout)) == {"auto", *LAYOUTS}
