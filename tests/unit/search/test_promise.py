"""An index that promises something: its kind chosen, its shards measured, its promise kept or the index refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.embeddings import write_part
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import CHOSEN, IDS, chosen_settings
from retrieval.search import budget, promise
from retrieval.search.index import Shard, search_all
from retrieval.search.promise import choose_kind, keep, measured_in, settings_in, shards_to_try, try_shard
from retrieval.search.settings import IndexConfig
from retrieval.search.shards import write_shard, write_trained
from tests.support.vectors import DIM, clustered

NUM, PART = 1500, 100


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, np.ndarray]:
    """Embeddings in parts, in no order of name; vectors by row of the index."""
    folder, vectors = Folder.of(tmp_path_factory.mktemp("stored")), clustered(NUM)
    names = np.array([f"{number:05d}.jpg" for number in np.random.default_rng(3).permutation(NUM)])
    for part, start in enumerate(range(0, NUM, PART)):
        write_part(folder, part, names[start : start + PART].tolist(), vectors[start : start + PART])
    order = np.argsort(names)
    table: dict[str, Any] = {"image_id": names[order], "label": pa.nulls(NUM, pa.string())}
    table |= {"part": (order // PART).astype(np.int32), "row_in_part": (order % PART).astype(np.int32)}
    folder.write_table(IDS, pa.table(table))
    return folder, vectors[order]


@pytest.fixture
def out(stored: tuple[Folder, np.ndarray], tmp_path: Path) -> Folder:
    folder = Folder.of(tmp_path)
    folder.write_bytes(IDS, stored[0].read_bytes(IDS))
    return folder


def build(embeddings: Folder, out: Folder, config: IndexConfig, shards: int) -> list[Shard]:
    write_trained(embeddings, out, config, DIM)
    names = [str(write_shard(embeddings, out, config, DIM, shard, shards)["name"]) for shard in range(shards)]
    return [Shard.load(out, name) for name in names]


@pytest.mark.parametrize("shards", [1, 3])
def test_the_promise_of_lists_is_kept_by_all_who_open_them(
    stored: tuple[Folder, np.ndarray], out: Folder, shards: int
) -> None:
    embeddings, vectors = stored
    config = IndexConfig(factory="IVF16,Flat", nprobe=1, recall=0.97)
    build(embeddings, out, config, shards)
    tried = [try_shard(embeddings, out, config, DIM, shard, shards) for shard in shards_to_try(shards)]
    kept = keep(out, config, tried, NUM, shards)
    assert 0.97 <= kept["recall"] <= 1 and kept["factory"] == "IVF16,Flat"
    assert chosen_settings(out)["nprobe"] > 1
    opened = [Shard.load(out, f"shard-{shard:05d}.faiss") for shard in range(shards)]
    assert {shard.engine.index.nprobe for shard in opened} == {chosen_settings(out)["nprobe"]}  # type: ignore[attr-defined]
    queries = vectors[::5]
    near = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :11]
    rows = search_all(opened, queries, 11, None).rows
    assert np.mean([len(set(a) & set(b)) / 11 for a, b in zip(rows, near, strict=True)]) > 0.96
    lines, (name, recall, seconds) = measured_in(out)
    assert set(lines) == {"index"} and name.startswith("IVF16,Flat nprobe")
    assert (recall, seconds) == (kept["recall"], kept["seconds"]) and (recall, seconds) in lines["index"]


def test_an_index_that_falls_short_is_refused_and_says_by_what(stored: tuple[Folder, np.ndarray], out: Folder) -> None:
    config = IndexConfig(factory="IVF16,SQ4", recall=0.999)
    build(stored[0], out, config, 1)
    tried = [try_shard(stored[0], out, config, DIM, 0, 1)]
    with pytest.raises(ValueError, match=r"No kind of index keeps recall 0.999.*IVF16,SQ4 nprobe.*breaks recall"):
        keep(out, config, tried, NUM, 1)
    assert not out.exists(CHOSEN)


def test_the_kind_is_chosen_once_and_built_as_chosen(
    stored: tuple[Folder, np.ndarray], out: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = IndexConfig(recall=0.9, memory=f"{NUM * (DIM + NAMES_AND_LISTS)}B")
    chosen, why = choose_kind(stored[0], out, config, DIM)
    assert "IVF" in chosen.factory and "Flat," not in chosen.factory, "vectors do not fit into it"
    assert f"expected of {NUM:,} images" in why and "asked: recall 0.9, memory" in why
    assert chosen == settings_in(out, config) and chosen.recall == 0.9
    monkeypatch.setattr(promise, "measure", lambda *_, **__: pytest.fail("measured again"))
    assert choose_kind(stored[0], out, config, DIM) == (chosen, why)
    monkeypatch.undo()
    build(stored[0], out, chosen, 2)
    tried = [try_shard(stored[0], out, chosen, DIM, shard, 2) for shard in range(2)]
    kept = keep(out, chosen, tried, NUM, 2)
    assert kept["recall"] >= 0.9 and kept["bytes"] <= config.max_bytes
    lines, _ = measured_in(out)
    assert {"Flat", "HNSW32", chosen.factory, "index"} <= set(lines)


NAMES_AND_LISTS = budget.NAMES + 40
"""Beside a byte a number; lists and their centroids take the more the fewer vectors there are."""


def test_what_cannot_be_promised_is_said_before_anything_is_built(
    stored: tuple[Folder, np.ndarray], out: Folder
) -> None:
    with pytest.raises(
        ValueError, match="No kind of index keeps recall 0.99, memory 1kB for 1,500 images here. Nearest"
    ):
        choose_kind(stored[0], out, IndexConfig(recall=0.99, memory="1kB"), DIM)
    assert not out.exists(CHOSEN)


def test_time_is_of_all_shards_and_recall_of_their_mean() -> None:
    one = {"settings": {"factory": "Flat", "nprobe": 1, "ef_search": 1, "refine_factor": 1.0}, "bytes_each": 10.0}
    tried = [[{**one, "recall": 0.9, "seconds": 0.001}], [{**one, "recall": 1.0, "seconds": 0.003}]]

    class Written(Folder):
        def exists(self, name: str) -> bool:
            return False

        def write_json(self, name: str, value: Any, about: Any = None) -> Any:
            return None

    kept = keep(Written("nowhere"), IndexConfig(recall=0.94), tried, 100, 8)
    assert kept["recall"] == pytest.approx(0.95) and kept["seconds"] == pytest.approx(0.016)
    assert kept["bytes"] == 1000 and replace(IndexConfig(), factory=kept["factory"]) == IndexConfig()


@pytest.mark.parametrize(("shards", "tried"), [(1, [0]), (3, [0, 1, 2]), (10, [0, 3, 6, 9]), (4, [0, 1, 2, 3])])
def test_some_shards_are_tried(shards: int, tried: list[int]) -> None:
    assert shards_to_try(shards) == tried
