"""group on a real local Ray: groups, copies, numbers that go on, the same as without a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_jobs.group import GroupConfig, main
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import MANIFEST
from retrieval.grouping.people import PEOPLE
from retrieval.grouping.settings import GroupingConfig
from tests.support import grouped
from tests.support.grouped import make_folders
from tests.unit.ray_jobs.test_group import with_copies

pytestmark = pytest.mark.usefixtures("ray_local")


def config(where: dict[str, Folder], out: Path, previous: str = "") -> GroupConfig:
    places = {kind: folder.uri for kind, folder in where.items()}
    return GroupConfig(**places, out=str(out), previous=previous, group=GroupingConfig(threshold=0.4))


def numbers(folder: Path) -> dict[str, int | None]:
    return {row["image_id"]: row["person"] for row in Folder.of(folder).read_table(PEOPLE).to_pylist()}


def test_people_and_copies_are_found_and_their_numbers_go_on(tmp_path: Path) -> None:
    photos = with_copies(grouped.people(8, 4), 6)
    early = make_folders(tmp_path / "a", [*photos[:22], *photos[32:]])
    first = main(config(early, tmp_path / "people1"))
    assert (first.counts["people"], first.counts["same_picture"], first.counts["single"]) == (6, 6, 0)
    assert first.counts["bcubed_precision"] == first.counts["bcubed_recall"] == 1.0
    assert main(config(early, tmp_path / "people1")) == first
    assert main(config(early, tmp_path / "again")).fingerprint == first.fingerprint

    second = main(config(make_folders(tmp_path / "b", photos), tmp_path / "people2", str(tmp_path / "people1")))
    before, after = numbers(tmp_path / "people1"), numbers(tmp_path / "people2")
    assert {name: after[name] for name in before} == before
    assert (second.counts["kept"], second.counts["new"], second.counts["people"]) == (6, 2, 8)


def test_embeddings_of_other_photos_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    where = make_folders(tmp_path / "a", grouped.people(2, 3))
    other = make_folders(tmp_path / "b", grouped.people(3, 3))
    with pytest.raises(ValueError, match="made with embeddings"):
        main(config(where | {"embeddings": other["embeddings"]}, tmp_path / "out"))
    assert not (tmp_path / "out" / MANIFEST).exists()
