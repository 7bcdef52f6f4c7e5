"""Which settings are tried, what is measured of them, and which one keeps a promise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.search.budget import (
    NAMES,
    K,
    Measured,
    asked,
    broken,
    candidates,
    choose,
    measure,
    memory_of,
    name_of,
    recall_of,
    settings,
    told,
)
from retrieval.search.engines.engine import kind_of
from retrieval.search.index import Shard, build_shard, train_index
from retrieval.search.settings import IndexConfig
from tests.support.vectors import DIM, clustered

ASKED = IndexConfig(recall=0.9, memory="1GB", latency="10ms")


def seen(factory: str, recall: float, ms: float, each: float, **more: object) -> Measured:
    return Measured(config=replace(ASKED, factory=factory, **more), recall=recall, seconds=ms / 1e3, bytes_each=each)


FLAT, GRAPH = seen("Flat", 1.0, 9, 500), seen("HNSW32", 0.97, 1, 800)
LISTS = seen("IVF64,RaBitQfs,RFlat", 0.92, 2, 60, nprobe=8, refine_factor=4)
COARSE = seen("IVF64,RaBitQfs,RFlat", 0.80, 0.5, 60, nprobe=2, refine_factor=4)
ALL = [COARSE, LISTS, GRAPH, FLAT]


@pytest.mark.parametrize(
    ("promise", "num", "best"),
    [
        ({"recall": 0.9, "latency": "10ms"}, 1000, FLAT),  # exact, and quick enough
        ({"recall": 0.9, "latency": "5ms"}, 1000, GRAPH),
        ({"recall": 0.9}, 1000, GRAPH),  # no time was asked for: the quickest
        ({"recall": 0.9, "memory": "70kB"}, 1000, LISTS),
        ({"recall": 0.7, "memory": "70kB"}, 1000, COARSE),
        ({"memory": "70kB"}, 1000, LISTS),  # no recall was asked for: the most
        ({"memory": "600kB"}, 1000, FLAT),
        ({"latency": "1.5ms"}, 1000, GRAPH),
        ({"recall": 0.9, "memory": "0.07GB"}, 1_000_000, LISTS),
    ],
)
def test_the_choice_keeps_the_promise(promise: dict[str, object], num: int, best: Measured) -> None:
    config = IndexConfig(**promise)  # type: ignore[arg-type]
    assert choose(ALL, config, num) is best
    assert broken(best, config, num) == []


def test_a_promise_that_nothing_keeps_names_what_comes_nearest_and_what_it_breaks() -> None:
    config = IndexConfig(recall=0.95, memory="70kB", latency="5ms")
    with pytest.raises(
        ValueError, match=r"No kind of index keeps recall 0.95, memory 70kB, latency 5ms for 1,000"
    ) as e:
        choose(ALL, config, 1000)
    assert f"Nearest: {told(LISTS, 1000)} (breaks recall)" in str(e.value)
    assert f"{told(GRAPH, 1000)} (breaks memory)" in str(e.value)
    assert f"{told(FLAT, 1000)} (breaks memory, latency)" in str(e.value)
    assert told(COARSE, 1000) not in str(e.value), "one of each kind"
    assert asked(IndexConfig(latency="5ms")) == "latency 5ms"


def test_what_is_tried_of_each_kind() -> None:
    kinds = {kind[0].factory: kind for kind in candidates(ASKED, 50_000, 128)}
    assert list(kinds) == [
        "Flat",
        "HNSW32",
        *(f"IVF512,{c}" for c in ("Flat", "SQ8", "PQ64x4fs,RFlat", "RaBitQfs,RFlat")),
    ]
    assert [one.ef_search for one in kinds["HNSW32"]] == [16, 32, 64, 128, 256, 512]
    assert [one.nprobe for one in kinds["IVF512,SQ8"]] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    refined = kinds["IVF512,RaBitQfs,RFlat"]
    assert len({(one.nprobe, one.refine_factor) for one in refined}) == len(refined) == 9 * 4
    assert all(one.recall == 0.9 for kind in kinds.values() for one in kind)
    assert [kind[0].factory for kind in candidates(ASKED, 100, 128)] == ["Flat", "HNSW32"], "too few for lists"
    assert not any("PQ" in kind[0].factory for kind in candidates(ASKED, 50_000, 127))
    assert candidates(ASKED, 10_000_000, 8)[-1][0].factory == "IVF8192,RaBitQfs,RFlat"
    assert settings(IndexConfig(factory="KDTree", max_visits=3)) == [IndexConfig(factory="KDTree", max_visits=3)]


@pytest.mark.parametrize("factory", ["Flat", "HNSW8", "IVF8,RaBitQfs,RFlat", "KDTree"])
def test_recall_is_that_of_exact_search_without_the_query_itself(tmp_path: Path, factory: str) -> None:
    vectors, config = clustered(800), IndexConfig(factory=factory)
    folder, name = Folder.of(tmp_path), f"shard-00000{kind_of(factory).suffix}"
    done = folder.write_bytes(name, build_shard(config, train_index(config, vectors), vectors, np.arange(800)))
    itself = np.arange(0, 800, 40)
    near = np.argsort(-(vectors[itself] @ vectors.T), axis=1)[:, : K + 1]
    exact = np.array([row[row != own][:K] for row, own in zip(near, itself, strict=True)])
    opened = Shard.load(folder, name)
    found = measure(settings(config), opened, vectors[itself], exact, itself, done.num_bytes)
    assert [one.config for one in found] == settings(config)
    assert found[-1].recall > (0.95 if "RaBitQ" in factory else 0.99), "the one that looks hardest"
    if "IVF" in factory:
        assert found[0].recall < found[-1].recall - 0.05
    assert {one.bytes_each for one in found} == {done.num_bytes / 800 + NAMES}
    assert all(0 < one.seconds < 1 for one in found)
    enough = measure(settings(config), opened, vectors[itself], exact, itself, done.num_bytes, enough=0.5)
    assert len(enough) <= len(found) and enough[-1].recall >= 0.5 and all(one.recall < 0.5 for one in enough[:-1])


def test_missing_neighbours_and_vectors_on_disk_are_not_counted() -> None:
    assert recall_of(np.array([[1, 2, -1], [7, 8, 9]]), np.array([[2, 5, -1], [9, 8, 7]])) == 4 / 5
    assert recall_of(np.array([[-1, -1]]), np.array([[-1, -1]])) == 1, "an index of one image has no neighbours"
    assert memory_of(IndexConfig(factory="IVF8,PQ16x4fs,RFlat"), 10_000, 50, DIM) == 10_000 - 4 * DIM * 50
    assert memory_of(IndexConfig(factory="IVF8,Flat"), 10_000, 50, DIM) == 10_000


def test_what_a_sample_says_of_the_whole() -> None:
    """A million in two shards of half a million, by fifty thousand: ten times as many a shard."""
    for one, times in ((FLAT, 20), (LISTS, 2 * 10**0.5), (GRAPH, 2 * np.log(500_000) / np.log(50_000))):
        assert one.of_index(1_000_000, 500_000, 50_000).seconds == pytest.approx(one.seconds * times)
        assert one.of_index(50_000, 50_000, 50_000).seconds == pytest.approx(one.seconds)


def test_a_setting_is_told_in_a_line() -> None:
    assert told(LISTS, 2_000_000) == ("IVF64,RaBitQfs,RFlat nprobe 8 refine 4: recall 0.920, 2.00 ms a query, 0.12 GB")
    assert [name_of(one.config) for one in (FLAT, GRAPH)] == ["Flat", "HNSW32 ef 64"]
    assert told(FLAT, 1000).endswith("0.5 MB")
