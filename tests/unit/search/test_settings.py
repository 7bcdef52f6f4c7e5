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


def test_promises_have_units() -> None:
    assert not IndexConfig().promises and not IndexConfig(factory="HNSW32").is_chosen
    made = IndexConfig(recall=0.95, memory="1.5GB", latency="20 ms")
    assert (made.max_bytes, made.max_seconds) == (1.5e9, pytest.approx(0.02)) and made.is_chosen
    assert IndexConfig(memory="2MiB").max_bytes == 1 << 21
    assert not replace(made, factory="HNSW32").is_chosen and replace(made, factory="HNSW32").promises
    for name, bad in (("memory", "8"), ("memory", "8gb"), ("latency", "20"), ("latency", "-1ms"), ("memory", "0GB")):
        with pytest.raises(ValueError, match=f"{name} is '{bad}', expected a number and a unit"):
            IndexConfig(**{name: bad})  # type: ignore[arg-type]
    for recall in (0.0, 1.01, math.nan):
        with pytest.raises(ValueError, match="recall is .*expected above 0 and at most 1"):
            IndexConfig(recall=recall)


def test_an_expansion_s_limits() -> None:
    assert (ExpansionConfig().num, ExpansionConfig(num=0, alpha=0).alpha) == (0, 0)
    for bad in ({"num": -1}, {"alpha": -0.01}, {"alpha": math.nan}, {"alpha": math.inf}):
        with pytest.raises(ValueError, match="expected 0 or more of both"):
            replace(ExpansionConfig(), **bad)
