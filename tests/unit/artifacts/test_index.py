"""What an index's seal says is read from where it was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import KIND, factory_of, settings_of, shards_of, small_files
from retrieval.artifacts.manifest import read_manifest, seal


def test_the_factory_is_read_from_where_it_was_sealed(tmp_path: Path) -> None:
    config = settings_of(("query", "gallery"), {"factory": "IVF2,Flat", "seed": 3})
    seal(Folder.of(tmp_path), kind=KIND, config=config, inputs={}, counts={})
    sealed = read_manifest(Folder.of(tmp_path), "index")
    assert factory_of(sealed) == "IVF2,Flat"
    # Indexes that were sealed before say the same, in the same places.
    assert sealed.config == {"splits": ["query", "gallery"], "index": {"factory": "IVF2,Flat", "seed": 3}}


def test_shards_are_dealt_to_parts_one_by_one_and_all_of_them(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    for name in (*(f"shard-{number:05d}.faiss" for number in range(5)), "ids.parquet", "trained.faiss"):
        folder.write_bytes(name, b"x")
    seal(folder, kind=KIND, config=settings_of((), {}), inputs={}, counts={})
    sealed = read_manifest(folder)
    dealt = [[int(name[6:11]) for name in shards_of(sealed, part, 3)] for part in range(3)]
    assert dealt == [[0, 3], [1, 4], [2]]
    assert sorted(name for part in range(3) for name in shards_of(sealed, part, 3)) == shards_of(sealed)
    assert {*shards_of(sealed), *small_files(sealed)} == {*sealed.files}
    with pytest.raises(ValueError, match="5 shards cannot be spread over 6 parts"):
        shards_of(sealed, 0, 6)
