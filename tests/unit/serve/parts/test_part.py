"""One part of an index: it holds its shards and no others, of every index that is asked for, and says what is wrong."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import chosen_settings
from retrieval.artifacts.manifest import read_manifest
from retrieval.search.index import Searcher
from retrieval.search.ranking import Neighbours
from retrieval.search.settings import IndexConfig
from serve.parts import part as module
from serve.parts.messages import IndexName, Told, Vectors
from serve.parts.part import Part
from serve.settings import ServeArgs
from tests.support.gallery import Sealed, sealed_gallery
from tests.support.versions import flip
from tests.support.workspace import make_index

PARTS = 3


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    return sealed_gallery(tmp_path_factory.mktemp("parts"))


def index_of(
    sealed: Sealed, folder: Path, shards: int = 5, factory: str = "Flat", recall: float | None = None
) -> IndexName:
    """Another index of the same embeddings."""
    root, out = sealed.workspace, Folder.of(folder)
    (name,) = {one.split("/")[0] for one in (root / "embeddings").list()}
    config = IndexConfig(factory=factory, num_shards=shards, ef_search=7, recall=recall)
    make_index(out, root / f"embeddings/{name}", config, sealed.pair.collection)
    return IndexName(out.uri, read_manifest(out).fingerprint)


def part_of(number: int, **more: Any) -> Part:
    return Part(ServeArgs(workspace="w", **{"index_parts": PARTS, **more}), number)


async def held(part: Part, index: IndexName) -> Told:
    """How it stands when it has tried to load it."""
    while (told := await part.hold(index)).state == "loading":
        await asyncio.sleep(0.01)
    return told


def test_together_they_hold_every_row_once_and_each_copies_its_own_shards_only(sealed: Sealed, tmp_path: Path) -> None:
    index, cache = index_of(sealed, tmp_path / "i"), tmp_path / "cache"
    vectors, rows, copied = np.stack([*sealed.vectors.values()]), np.arange(len(sealed.vectors)), []

    async def work() -> None:
        seen = np.zeros(len(rows), int)
        for number in range(PARTS):
            part = part_of(number, cache=str(cache), cache_local=True)
            assert (await part.hold(index)).state == "loading"
            told = await held(part, index)
            found = await part.search(index, vectors[:2], len(rows), None)
            of = await part.vectors_of(index, rows)
            assert isinstance(found, Neighbours) and isinstance(of, Vectors)
            mine = found.rows[0][found.rows[0] >= 0]
            assert sorted(mine) == np.flatnonzero(of.mine).tolist() and told.num == len(mine) == len(of.vectors)
            assert (told.dim, told.keeps_vectors) == (vectors.shape[1], True)
            seen += of.mine
            (folder,) = {path for path in cache.iterdir() if path.is_dir()} - {one.parent for one in copied}
            copied.extend(folder.glob("shard-*"))
        assert seen.tolist() == [1] * len(rows)

    asyncio.run(work())
    assert sorted(path.name for path in copied) == [f"shard-{number:05d}.faiss" for number in range(5)]


def test_an_index_that_promises_recall_is_searched_as_was_measured(sealed: Sealed, tmp_path: Path) -> None:
    """Also where only a part of its files is copied to the node."""
    index = index_of(sealed, tmp_path / "i", 2, "HNSW8", recall=0.5)
    chosen = chosen_settings(Folder.of(index.uri))["ef_search"]

    async def work() -> None:
        for number in range(2):
            part = part_of(number, index_parts=2, cache=str(tmp_path / "cache"), cache_local=True)
            await held(part, index)
            (shard,) = part._opened[index.fingerprint].shards
            assert shard.engine.index.hnsw.efSearch == chosen != 7  # type: ignore[attr-defined]

    asyncio.run(work())


def test_only_what_is_allowed_is_found(sealed: Sealed, tmp_path: Path) -> None:
    index = index_of(sealed, tmp_path / "i", 2)
    query = next(iter(sealed.vectors.values()))[None]
    allowed = np.arange(len(sealed.vectors)) % 7 == 3

    async def work() -> None:
        part = part_of(0, index_parts=2)
        await held(part, index)
        found = await part.search(index, query, 9, np.packbits(allowed))
        assert isinstance(found, Neighbours)
        rows = found.rows[found.rows >= 0]
        assert len(rows) >= 2 and allowed[rows].all()

    asyncio.run(work())


def test_old_and_new_are_held_while_they_are_asked_for(
    sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = index_of(sealed, tmp_path / "old"), index_of(sealed, tmp_path / "new", 4)
    now = [1000.0]
    monkeypatch.setattr(module, "_now", lambda: now[0])
    query = next(iter(sealed.vectors.values()))[None]

    async def work() -> None:
        part = part_of(1)
        await held(part, old)
        await held(part, new)
        for _ in range(3):
            now[0] += 0.7 * module.HELD_S
            for index in (old, new):
                assert isinstance(await part.search(index, query, 1, None), Neighbours)
        assert list(part._opened) == [old.fingerprint, new.fingerprint]
        now[0] += 0.7 * module.HELD_S
        await part.hold(new)
        now[0] += 0.7 * module.HELD_S
        await part.hold(new)
        assert list(part._opened) == [new.fingerprint], "nobody asks for the old one any more"
        assert isinstance(await part.search(old, query, 1, None), Told), "it says so instead of another's answer"
        await held(part, old)
        assert isinstance(await part.search(old, query, 1, None), Neighbours)

    asyncio.run(work())


def test_what_cannot_be_held_is_told_and_tried_again(sealed: Sealed, tmp_path: Path) -> None:
    index = index_of(sealed, tmp_path / "i", PARTS)
    away = shutil.copytree(tmp_path / "i", tmp_path / "away")

    async def work() -> None:
        part = part_of(0)
        other = await held(part, IndexName(index.uri, "e" * 64))
        assert other.state == "refused" and "expected eeeeeeeeeeee" in other.why
        flip(Folder.of(tmp_path / "i"), "shard-00000.faiss")
        bad = await held(part, index)
        assert bad.state == "refused" and "shard-00000.faiss is not the file that was sealed" in bad.why
        assert (await held(part_of(1), index)).state == "held", "the others' shards are well"
        shutil.rmtree(tmp_path / "i")
        gone = await held(part, index)
        assert gone.state == "refused" and "does not exist" in gone.why
        shutil.copytree(away, tmp_path / "i")
        assert (await held(part, index)).state == "held"
        few = index_of(sealed, tmp_path / "few", 2)
        assert "An index of 2 shards cannot be spread over 3 parts" in (await held(part, few)).why

    asyncio.run(work())


def test_storage_that_fails_is_no_fault_of_the_index(
    sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_of(sealed, tmp_path / "i", PARTS)
    for error, says in ((OSError("no route to it"), "no route"), (KeyError("x"), "KeyError.*log says more")):

        def fails(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(module.Shard, "load", fails)
            told = asyncio.run(held(part_of(0), index))
        assert told.state == "failed"
        assert says.split(".*")[-1] in told.why


def test_a_part_says_whether_it_keeps_vectors(sealed: Sealed, tmp_path: Path) -> None:
    told = asyncio.run(held(part_of(0), index_of(sealed, tmp_path / "i", PARTS, "SQ8")))
    assert not told.keeps_vectors and Searcher.open(tmp_path / "i").dim == told.dim
