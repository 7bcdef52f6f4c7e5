"""What tests of shared galleries share: a workspace on a disk or in an object store, and hosts that open it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.live.store import Store
from tests.support.hosts import Host
from tests.support.object_store import ObjectStore


@pytest.fixture(params=["disk", "s3"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "s3":
        store: ObjectStore = request.getfixturevalue("s3")
        return Folder(store.bucket()) / "w"
    return on_disk(tmp_path)


def on_disk(tmp_path: Path) -> Folder:
    (tmp_path / "w/live/log").mkdir(parents=True)
    return Folder.of(tmp_path / "w")


@pytest.fixture
def disk(tmp_path: Path) -> Folder:
    return on_disk(tmp_path)


@pytest.fixture
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """A host by its name, with a disk of its own; it may be opened again."""
    place = request.getfixturevalue("workspace" if "workspace" in request.fixturenames else "disk")
    opened: list[Store] = []

    def open_it(name: str) -> Store:
        opened.append(Store.open(place, tmp_path / "hosts" / name))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()
