"""What is compared: read from text, and refused where its parts were not made from each other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest, seal
from retrieval.evaluation.settings import System
from tests.support.measured import write_collection, write_system


def parsed(text: str) -> tuple[str, ...]:
    system = System.parse(text)
    return (system.name, *(str(folder) for folder in (system.model, system.embeddings, system.index)))


def test_a_system_is_read_from_text(tmp_path: Path) -> None:
    m, e, i = (str(tmp_path / name) for name in ("m", "e", "i=1"))
    assert parsed(f"a + b={m},{e},{i}") == ("a + b", *(str(Folder.of(folder)) for folder in (m, e, i)))
    assert parsed(f"a={m},{e}")[3] == "None"
    for odd in ("a", "=m,e", "a=m", "a=m,e,i,x", "a=m,,i", "a="):
        with pytest.raises(ValueError, match="Write NAME=MODEL,EMBEDDINGS,INDEX"):
            System.parse(odd)


def test_a_system_says_what_it_is_made_of(collection: Folder, tmp_path: Path) -> None:
    first, second = (write_system(Folder.of(tmp_path), collection, name, seed=n) for n, name in enumerate("ab"))
    collected = read_manifest(collection)
    assert first.fingerprints(collected) == {
        "a.model": read_manifest(first.model).fingerprint,
        "a.embeddings": read_manifest(first.embeddings).fingerprint,
    }
    with pytest.raises(ValueError, match="of system 'a' were made with model"):
        dataclasses.replace(first, model=second.model).fingerprints(collected)
    other = write_collection(Folder.of(tmp_path / "other"), crop="fit")
    with pytest.raises(ValueError, match="of system 'a' were made with collection"):
        first.fingerprints(read_manifest(other))
    index = Folder.of(tmp_path / "index")
    seal(index, kind="index", config={}, inputs={"embeddings": read_manifest(first.embeddings).fingerprint}, counts={})
    whole = dataclasses.replace(first, index=index)
    assert whole.fingerprints(collected)["a.index"] == read_manifest(index).fingerprint
    with pytest.raises(ValueError, match="of system 'b' was made with embeddings"):
        dataclasses.replace(second, index=index).fingerprints(collected)
