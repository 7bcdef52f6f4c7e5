"""group on a real local Ray: groups, copies, numbers that go on, the same as without a cluster."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ray_jobs import build_index, embed, freeze, ingest
from ray_jobs.group import GroupConfig, main
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import MANIFEST
from retrieval.evaluation.clustering import clustering_metrics
from retrieval.grouping.people import DUPLICATES, PEOPLE
from retrieval.grouping.settings import GroupingConfig
from retrieval.images.settings import PrepareConfig
from tests.support import grouped
from tests.support.grouped import make_folders
from tests.unit.ray_jobs.test_group import with_copies

pytestmark = pytest.mark.usefixtures("ray_local")


def config(where: dict[str, Folder], out: Path, previous: str = "") -> GroupConfig:
    places: dict[str, Any] = {kind: folder.uri for kind, folder in where.items()}
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


TWICE_IN_LFW = ("Julianne_Moore", "Julie_Gerberding")  # two files each that are one photo: found too, and no mistake


def flat_copy(source: Path, to: Path, num_people: int, num_copies: int) -> tuple[dict[str, str], dict[str, str]]:
    """Photos of some people in one folder under names that say nothing, and copies of some of them beside.

    Returns: name -> person; name of a copy -> name of its photo.
    """
    rng, to = np.random.default_rng(0), Path(to)
    to.mkdir()
    chosen = sorted(path for path in source.iterdir() if path.name not in TWICE_IN_LFW)[:: 1200 // num_people][
        :num_people
    ]
    photos = [path for person in chosen for path in sorted(person.iterdir())]
    names = [f"IMG_{number:04d}.jpg" for number in rng.permutation(len(photos))]
    people, copies = {}, {}
    for name, photo in zip(names, photos, strict=True):
        shutil.copy(photo, to / name)
        people[name] = photo.parent.name
    for number, of in enumerate(names[:: len(names) // num_copies][:num_copies]):
        with Image.open(to / of) as image:
            width, height = image.size
            kinds = (
                image.resize((round(width * 0.6), round(height * 0.6))),
                image,
                image.crop((round(width * 0.03), 0, round(width * 0.98), round(height * 0.95))),
            )
            copy = f"COPY_{number}.jpg"
            kinds[number % 3].save(to / copy, quality=50 if number % 3 == 1 else 85)
        people[copy], copies[copy] = people[of], of
    return people, copies


@pytest.mark.realdata
def test_people_of_real_photos_are_found_without_a_label(tmp_path: Path, real_faces: Path) -> None:
    truth, copies = flat_copy(real_faces, tmp_path / "photos", num_people=40, num_copies=9)
    where: dict[str, Any] = {name: str(tmp_path / name) for name in ("collection", "model", "embeddings", "index")}
    collection, model, embeddings, index = where.values()
    prepare = PrepareConfig(crop="aligned", detector="yunet", margin=0.0, size=112)
    photos = str(tmp_path / "photos")
    ingest.main(ingest.IngestConfig(source=photos, out=collection, layout="folder", prepare=prepare))
    freeze.main(freeze.FreezeConfig(collection=collection, out=model))
    embed.main(embed.EmbedConfig(collection=collection, model=model, out=embeddings))
    build_index.main(build_index.BuildIndexConfig(collection=collection, embeddings=embeddings, out=index))
    made = main(GroupConfig(**where, out=str(tmp_path / "people")))
    assert made.config["threshold"] == 0.403
    assert "bcubed_precision" not in made.counts
    found = numbers(tmp_path / "people")
    assert set(found) <= set(truth) and len(found) >= len(truth) - 3, "a face too poor to tell is no row"
    figures = clustering_metrics(list(found.values()), [truth[name] for name in found])
    assert figures.bcubed_precision >= 0.99
    assert figures.bcubed_recall >= 0.96
    twice = Folder.of(tmp_path / "people").read_table(DUPLICATES).to_pylist()
    assert {row["duplicate_of"]: row["image_id"] for row in twice} == copies
