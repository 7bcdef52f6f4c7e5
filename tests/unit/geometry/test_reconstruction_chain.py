"""A street that links all its photos into one group ends: it is mapped in parts, and is one place all the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.folder import Folder, part_name
from retrieval.geometry import mapping, reconstruction, stages
from retrieval.geometry.features import Features
from retrieval.geometry.settings import ReconstructConfig
from retrieval.geometry.sparse_model import SparseModel, covisible_pairs
from tests.support.local import blank_features
from tests.support.streets import part_of, street

NUM, LIMIT = 90, 20
CONFIG = ReconstructConfig(rounds=0, min_points=10, min_shared=15, val_fraction=0)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Each photo is linked with the two before it, strongly with the first; so all are one group."""
    monkeypatch.setattr(reconstruction, "MAX_GROUP", LIMIT)
    folder, names = Folder.of(tmp_path), [f"{n:02d}.jpg" for n in range(NUM)]
    places = {"part": [0] * NUM, "row": range(NUM), "num": [50] * NUM}
    folder.write_table("photos.parquet", pa.table({"image_id": names, **places}))
    table = stages.features_table(names, [blank_features(1)] * NUM, range(NUM))
    folder.write_table(f"features/{part_name(0)}", table)
    links = [(n - step, n, 200 // step + n % 7) for n in range(NUM) for step in (1, 2) if step <= n]
    rows = [{"a": a, "b": b, "num_inliers": inliers, "matches": b"12345678"} for a, b, inliers in links]
    folder.write_table(stages.links_name(0, 0), pa.Table.from_pylist(rows, stages.LINKS))
    return folder


def test_a_chain_of_places_is_mapped_in_parts_and_is_one_model(out: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, sizes = street(NUM), []

    def map_images(found: dict[str, Features], links: list[mapping.Link], *, min_images: int) -> list[SparseModel]:
        sizes.append(len(found))
        return [part_of(whole, [int(name[:2]) for name in found], seed=len(sizes))]

    monkeypatch.setattr(mapping, "map_images", map_images)
    joined = reconstruction.group(out, CONFIG)
    assert joined["groups"] >= NUM / LIMIT
    groups = out.read_table("groups.parquet").to_pylist()
    assert {row["whole"] for row in groups} == {0} == {row["cluster"] for row in groups}
    for number in range(joined["groups"]):
        reconstruction.map_group(out, number, CONFIG)
    assert max(sizes) <= LIMIT and sum(sizes) > NUM, "parts share photos"
    made = reconstruction.assemble(out, joined["groups"], CONFIG)
    assert (made["registered"], made["models"], made["clusters"]) == (NUM, 1, 1)
    pairs = covisible_pairs(whole)
    near = {(f"{a:02d}.jpg", f"{b:02d}.jpg") for a, b in zip(pairs.first, pairs.second, strict=True)}
    rows = out.read_table("tuples.parquet").to_pylist()
    found = {tuple(sorted((row["query"], other))) for row in rows for other in row["candidates"]}
    assert found <= near and len(found) > 0.9 * len(near)
    own = [row["group"] for row in groups]
    assert any(own[int(a[:2])] != own[int(b[:2])] for a, b in found), "photos of two parts are positives"


def test_parts_whose_models_differ_are_places_of_their_own(out: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each photo is in one model, the largest of its own, and the books balance."""
    rng = np.random.default_rng(0)

    def map_images(found: dict[str, Features], links: list[mapping.Link], *, min_images: int) -> list[SparseModel]:
        own = part_of(street(NUM), [int(name[:2]) for name in found], seed=1)
        return [dataclasses.replace(own, points=rng.permutation(own.points))]

    monkeypatch.setattr(mapping, "map_images", map_images)
    joined = reconstruction.group(out, CONFIG)
    for number in range(joined["groups"]):
        reconstruction.map_group(out, number, CONFIG)
    made = reconstruction.assemble(out, joined["groups"], CONFIG)
    assert made["models"] > 2 and made["images"] == NUM == made["registered"] + sum(made["unregistered"].values())
    assert made["registered"] > 0.7 * NUM and made["clusters"] == 1
