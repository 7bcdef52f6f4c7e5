"""What indexes and expansions may be asked for."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from retrieval.search.settings import ExpansionConfig, IndexConfig


@pytest.mark.parametrize("name", ["nprobe", "ef_search", "train_sample", "leaf_size", "max_visits", "num_shards"])
def test_counts_begin_at_one(name: str) -> None:
    assert getattr(replace(IndexConfig(), **{name: 1}), name) == 1
    for bad in (0, -1):
        with pytest.raises(ValueError, match=f"{name} is {bad}, expected 1 or more"):
            replace(IndexConfig(), **{name: bad})


def test_an_index_s_other_limits() -> None:
    config = IndexConfig()
    assert (config.factory, config.num_shards, config.max_visits, config.seed) == ("Flat", "auto", None, 0)
    assert IndexConfig(refine_factor=1).refine_factor == 1
    for bad in (0.99, math.nan):
        with pytest.raises(ValueError, match="refine_factor is .*expected 1 or more"):
            IndexConfig(refine_factor=bad)


def test_an_expansion_s_limits() -> None:
    assert (ExpansionConfig().num, ExpansionConfig(num=0, alpha=0).alpha) == (0, 0)
    for bad in ({"num": -1}, {"alpha": -0.01}, {"alpha": math.nan}, {"alpha": math.inf}):
        with pytest.raises(ValueError, match="expected 0 or more of both"):
            replace(ExpansionConfig(), **bad)
