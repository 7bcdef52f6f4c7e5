"""Which photo the demo asks with."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from serve.demo import QueryOnceConfig, query_photo
from tests.support.workspace import Workspace, make_workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("demo"), num_identities=6)


def first_query(made: Workspace) -> tuple[str, str]:
    rows = (made.folder / "collection/test").read_table("catalog.parquet").to_pylist()
    return min((row["image_id"], row["label"]) for row in rows if row["split"] == "query")


def test_the_first_query_photo_is_taken_with_who_it_shows(made: Workspace) -> None:
    image_id, label = first_query(made)
    drawn = Path(made.folder.path).parent / "drawn"
    photo, shown = query_photo(QueryOnceConfig(workspace=str(made.folder), source=str(drawn)))
    assert (photo, shown) == (drawn / image_id, label)


def test_of_equal_names_the_photo_of_the_collection_is_taken(made: Workspace, tmp_path: Path) -> None:
    """A workspace keeps every set that it drew, under equal names: the first in order shows somebody else."""
    image_id, _ = first_query(made)
    copy = Path(shutil.copytree(made.folder.path, tmp_path / "w"))
    original = Path(made.folder.path).parent / "drawn" / image_id
    for name in ("a", "b", "c"):
        there = copy / "photos" / name / image_id
        there.parent.mkdir(parents=True)
        there.write_bytes(original.read_bytes() if name == "b" else b"another")
    photo, _ = query_photo(QueryOnceConfig(workspace=str(copy)))
    assert photo == copy / "photos/b" / image_id
    assert hashlib.sha256(photo.read_bytes()).digest() == hashlib.sha256(original.read_bytes()).digest()


def test_photos_that_are_not_there_are_asked_for(made: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no .* in .*/photos. Name the folder"):
        query_photo(QueryOnceConfig(workspace=str(made.folder)))
    with pytest.raises(ValueError, match=f"There is no .* in {tmp_path}"):
        query_photo(QueryOnceConfig(workspace=str(made.folder), source=str(tmp_path)))
