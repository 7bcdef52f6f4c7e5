"""What an index's seal says is read from where it was written."""

from __future__ import annotations

from pathlib import Path

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import KIND, factory_of, settings_of
from retrieval.artifacts.manifest import read_manifest, seal


def test_the_factory_is_read_from_where_it_was_sealed(tmp_path: Path) -> None:
    config = settings_of(("query", "gallery"), {"factory": "IVF2,Flat", "seed": 3})
    seal(Folder.of(tmp_path), kind=KIND, config=config, inputs={}, counts={})
    sealed = read_manifest(Folder.of(tmp_path), "index")
    assert factory_of(sealed) == "IVF2,Flat"
    # Indexes that were sealed before say the same, in the same places.
    assert sealed.config == {"splits": ["query", "gallery"], "index": {"factory": "IVF2,Flat", "seed": 3}}
