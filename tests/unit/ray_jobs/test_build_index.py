"""The shards of an index: as many as its images ask for, of the images that were asked for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_jobs import build_index
from ray_jobs.build_index import BuildIndexConfig
from retrieval.artifacts.folder import Folder
from retrieval.search import index, shards
from retrieval.search.settings import IndexConfig
from tests.support.fake_jobs import sealed
from tests.support.inline import Cluster, install


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A call of the job with the library's functions written down; shards come back last first."""
    cluster, calls = install(monkeypatch, build_index), {}
    found = {"train": 70, "val": 5, "query": 3, "gallery": 20, "dropped": 9}

    def write_shard(shard: int, **fixed: Any) -> dict[str, Any]:
        return {"name": f"shard-{fixed['shards'] - 1 - shard:05d}", "num": 1}

    monkeypatch.setattr(shards, "plan_index", lambda *of: calls.update(plan=of) or SimpleNamespace(dim=16, num=98))
    monkeypatch.setattr(shards, "begin_index", lambda plan: calls.get("done"))
    monkeypatch.setattr(
        shards, "assign_rows", lambda collection, out, splits, embeddings: calls.update(rows=splits) or found
    )
    monkeypatch.setattr(shards, "write_trained", lambda *of, **how: calls.update(trained=of, how=how) or 42)
    monkeypatch.setattr(shards, "num_shards", lambda config, num, dim: calls.update(num=num) or 3)
    cluster.resources["CPU"] = 6.0
    monkeypatch.setattr(shards, "write_shard", write_shard)
    monkeypatch.setattr(shards, "seal_index", lambda *of: calls.update(seal=of) or "the manifest")
    places = {kind: sealed(tmp_path / kind, kind) for kind in ("collection", "embeddings")}

    def run(**settings: Any) -> tuple[Any, dict[str, Any], Cluster, dict[str, Folder]]:
        given: dict[str, Any] = (
            {kind: folder.uri for kind, folder in places.items()} | {"out": f"{tmp_path}/out"} | settings
        )
        return build_index.main(BuildIndexConfig(**given)), calls, cluster, places

    return run


def test_the_images_of_the_splits_are_counted_once_and_the_shards_sealed_in_order(built: Any) -> None:
    made, calls, cluster, places = built(splits=("train", "gallery", "train"), index=IndexConfig(factory="KDTree"))
    assert made == "the manifest" and calls["num"] == 90
    (call,) = cluster.parts
    assert (call["parts"], call["takes"], call["total_items"]) == ([0, 1, 2], "shard", 90)
    fixed = call["fixed"]
    assert (fixed["embeddings"], fixed["dim"], fixed["shards"]) == (places["embeddings"], 16, 3)
    assert fixed["config"] == IndexConfig(factory="KDTree")
    plan, found, trained_on, shards_, promise = calls["seal"]
    assert promise is None
    assert (plan.dim, found["dropped"], trained_on) == (16, 9, 42)
    assert [shard["name"] for shard in shards_] == ["shard-00000", "shard-00001", "shard-00002"]
    assert calls["plan"][:2] == (places["embeddings"], places["collection"]) and calls["rows"] == calls["plan"][3]


def test_by_default_all_but_what_was_dropped_is_indexed(built: Any) -> None:
    _, calls, _, _ = built()
    assert calls["num"] == 98 and set(calls["rows"]) == {"train", "val", "query", "gallery"}


def test_what_is_sealed_is_not_built_again(built: Any) -> None:
    *_, calls, cluster, _ = built()
    calls["done"] = SimpleNamespace(counts={"num": 98})
    done, *_ = built()
    assert done is calls["done"] and cluster.sessions == 1


def test_inputs_that_are_no_embeddings_are_refused_at_once(built: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds a 'collection', expected a 'embeddings'"):
        built(embeddings=f"{tmp_path}/collection")
    with pytest.raises(ValueError, match="holds a 'embeddings', expected a 'collection'"):
        built(collection=f"{tmp_path}/embeddings")


def test_training_is_given_all_cores_of_a_machine_if_it_looks_at_vectors(built: Any) -> None:
    _, calls, *_ = built(index=IndexConfig(factory="IVF2,Flat"))
    assert calls["how"] == {"num_threads": 6}
    _, calls, *_ = built()
    assert calls["how"] == {}


@pytest.mark.parametrize(("sample", "cores"), [(7, 6), (0, 1)])
def test_training_asks_for_what_it_uses(monkeypatch: pytest.MonkeyPatch, sample: int, cores: int) -> None:
    install(monkeypatch, build_index).resources["CPU"] = 6.0
    plan: Any = SimpleNamespace(dim=1 << 20, num=10)
    monkeypatch.setattr(index, "sample_size", lambda config, dim: sample)
    asked = build_index._training(plan, IndexConfig(), num=5)
    assert (asked.get("num_threads", 1), asked["needs"].cpus) == (cores, cores)
    vectors = 4 * (1 << 20) * min(sample, 5)
    assert 2 * vectors <= asked["needs"].memory - build_index.holding(0).memory <= 4 * vectors + 4000


def test_a_shard_is_given_the_memory_that_building_it_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The vectors of one shard once, and a little; benchmarks/bench_index_build.py measures it."""
    cluster = install(monkeypatch, build_index)
    monkeypatch.setattr(shards, "write_shard", lambda shard, **_: {"name": f"{shard}"})
    folder, vectors = Folder.of(tmp_path), 1 << 30
    for num in (10, 131_072, 1_310_720):
        build_index._build_shards(IndexConfig(), folder, folder, 2048, num)
    small, one, ten = (call["needs"].memory - build_index.holding(0).memory for call in cluster.parts)
    assert small < 1 << 27
    assert 1.1 * vectors < one < 1.4 * vectors
    assert one == ten, "more shards, each as large"
