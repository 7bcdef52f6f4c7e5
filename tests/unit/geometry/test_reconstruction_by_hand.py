"""Each stage of a reconstruction, by hand-made files of the one before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.folder import Folder, part_name
from retrieval.geometry import mapping, pairing, reconstruction, stages
from retrieval.geometry.features import Features
from retrieval.geometry.groups.keyed import write_keyed
from retrieval.geometry.matching.matches import Verified
from retrieval.geometry.settings import MIN_LINK, ReconstructConfig
from retrieval.geometry.sparse_model import SparseModel, read_model
from retrieval.images.pixels import BadImage
from tests.support.local import blank_features
from tests.support.tuples import scene


def write_photos(out: Folder, num: int, parts: int = 1, num_features: int = 20) -> list[str]:
    """photos.parquet and features of photos 00.jpg ..., dealt to the parts in turn."""
    names = [f"{number:02d}.jpg" for number in range(num)]
    part = [number % parts for number in range(num)]
    row = [number // parts for number in range(num)]
    columns = {"image_id": names, "part": part, "row": row, "num": [num_features] * num}
    out.write_table("photos.parquet", pa.table(columns))
    for at in range(parts):
        own = names[at::parts]
        table = stages.features_table(own, [blank_features(1 + names.index(name)) for name in own], range(len(own)))
        out.write_table(f"features/{part_name(at)}", table)
    return names


def write_links(out: Folder, links: list[tuple[int, int, int]], round_: int = 0) -> None:
    rows = [
        {"a": a, "b": b, "num_inliers": inliers, "matches": np.array([[a, b]], np.int32).tobytes()}
        for a, b, inliers in links
    ]
    out.write_table(f"links/round-{round_}/block-00000.parquet", pa.Table.from_pylist(rows, stages.LINKS))


def write_groups(out: Folder, groups: list[int], rounds: int) -> None:
    """Photos and links by group. Args: groups: of each photo, -1: none."""
    group = np.array(groups)
    members = np.flatnonzero(group >= 0)
    write_keyed(out, group[members], members, stages.links_of_rounds(out, rounds))


def test_links_are_the_pairs_of_the_block_with_enough_inliers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, config = Folder.of(tmp_path), ReconstructConfig(weak_inliers=15)
    write_photos(out, 6, parts=2)
    pairs = [(0, 2), (0, 1), (1, 2), (3, 5), (4, 5)]  # by parts: (0, 2), (0, 1), (4, 5), (1, 2), (3, 5)
    pairing.write_pairs(out, 1, np.array(pairs))
    inliers = {(0, 1): 40, (0, 2): 40, (1, 2): 14, (3, 5): 99, (4, 5): 15}

    def verify(first: Features, second: Features) -> Verified:
        a, b = len(first.keypoints) - 1, len(second.keypoints) - 1  # see `write_photos`
        return Verified(num_inliers=inliers[a, b], matches=np.array([[a, b], [b, a]], np.int32))

    monkeypatch.setattr(reconstruction, "verify", verify)
    done = reconstruction.verify_block(out, 1, 1, 2, config)
    assert done == {"block": 1, "taken": 2, "links": 1, "resumed": 0}
    (row,) = out.read_table("links/round-1/block-00001.parquet").to_pylist()
    matches = np.array([[4, 5], [5, 4]], np.int32).tobytes()
    assert row == {"a": 4, "b": 5, "num_inliers": 15, "matches": matches}
    last = reconstruction.verify_block(out, 1, 2, 2, config)
    assert last == {"block": 2, "taken": 1, "links": 1, "resumed": 0}
    monkeypatch.setattr(reconstruction, "verify", None)
    assert reconstruction.verify_block(out, 1, 1, 2, config) == done | {"resumed": 1}


def test_strong_links_are_mapped_together_and_weak_ones_still_tell_that_it_may_be_one_place(tmp_path: Path) -> None:
    """0-1-2 and 5-6-7-8 are groups; 3-4 are too few; 2 and 5, and 3 and 8, are linked weakly; 9 is linked to nothing.

    So all but 9 may be one place, and none of them is another's negative.
    """
    out, config = Folder.of(tmp_path), ReconstructConfig(strong_inliers=30, weak_inliers=15, min_images=3, rounds=1)
    names = write_photos(out, 10)
    strong = [(0, 1, 30), (1, 2, 31), (3, 4, 90), (5, 6, 30), (6, 7, 30)]
    write_links(out, [*strong, (2, 5, 29)])
    write_links(out, [(7, 8, 30), (3, 8, 15)], round_=1)
    write_links(out, [(8, 9, 99)], round_=2)  # of a round that is not asked for
    assert reconstruction.group(out, config) == {"links": 8, "strong": 6, "groups": 2}
    rows = out.read_table("groups.parquet").to_pylist()
    assert [row["image_id"] for row in rows] == names
    assert [row["group"] for row in rows] == [0, 0, 0, -1, -1, 1, 1, 1, 1, -1]
    assert [row["cluster"] for row in rows] == [0] * 9 + [1]
    assert [row["linked"] for row in rows] == [True] * 9 + [False]
    assert [row["strong"] for row in rows] == [True] * 9 + [False]
    write_links(out, [(0, 1, 29), (4, 5, 30), (5, 6, 30)])
    write_links(out, [], round_=1)
    assert reconstruction.group(out, config) == {"links": 3, "strong": 2, "groups": 1}
    rows = out.read_table("groups.parquet").to_pylist()
    assert [row["group"] for row in rows] == [-1, -1, -1, -1, 0, 0, 0, -1, -1, -1]
    assert [row["cluster"] for row in rows] == [0, 0, 1, 2, 3, 3, 3, 4, 5, 6]
    assert [row["linked"] for row in rows] == [n in (0, 1, 4, 5, 6) for n in range(10)]
    assert [row["strong"] for row in rows] == [n in (4, 5, 6) for n in range(10)]


@pytest.mark.parametrize("num_edges", [0, 22, 200])
def test_components_are_the_transitive_closure(num_edges: int) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 30, size=(2, num_edges)).astype(np.int32)
    slow = np.arange(30)
    for _ in range(30):
        for x, y in zip(a, b, strict=True):
            slow[x] = slow[y] = min(slow[x], slow[y])
    assert reconstruction.components(30, a, b).tolist() == slow.tolist()
    assert reconstruction.components(0, a[:0], b[:0]).tolist() == []


def model_of(names: str, num_points: int = 60) -> SparseModel:
    """Every image sees every point."""
    seen = [(image, point, 1.0) for image in range(len(names)) for point in range(num_points)]
    return scene([f"{name}.jpg" for name in names], seen)


def test_an_image_is_kept_in_the_largest_of_its_models_alone() -> None:
    config = ReconstructConfig(min_images=3, min_points=50)
    models = [model_of("abcd"), model_of("cdefg"), model_of("dhi"), model_of("eijkl"), model_of("xyz", 49)]
    kept = reconstruction._kept(models, config)
    assert [[name[0] for name in model.image_ids] for model in kept] == [list("abcd"), list("efg"), list("ijkl")]
    names = [name for model in kept for name in model.image_ids]
    assert len(names) == len(set(names))
    assert reconstruction._kept([model_of("abc", 50)], config) != []
    assert reconstruction._kept([model_of("ab", 50)], config) == []


def test_a_group_is_mapped_from_its_own_links_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, config = Folder.of(tmp_path), ReconstructConfig(rounds=1, min_images=2, min_points=1)
    names = write_photos(out, 6, parts=2)
    write_links(out, [(4, 5, 30), (1, 2, 15), (0, 1, 80), (2, 3, 80), (2, 4, 30)])
    write_links(out, [(1, 5, 30)], round_=1)
    write_links(out, [(2, 5, 30)], round_=2)
    write_groups(out, [0, 1, 1, -1, 1, 1], rounds=2)
    asked: list[Any] = []

    def map_images(found: dict[str, Features], links: list[mapping.Link], *, min_images: int) -> list[SparseModel]:
        asked.append((found, links, min_images))
        return [model_of("pqr", 5), model_of("st", 5)]

    monkeypatch.setattr(mapping, "map_images", map_images)
    done = reconstruction.map_group(out, 1, config)
    assert done == {"group": 1, "taken": 4, "broken": 0, "resumed": 0, "models": 2, "registered": 5}
    ((found, links, min_images),) = asked
    assert min_images == 2
    assert {name: len(own.keypoints) for name, own in found.items()} == {names[n]: n + 1 for n in (1, 2, 4, 5)}
    assert [(a, b) for a, b, _ in links] == [(names[a], names[b]) for a, b in ((1, 2), (1, 5), (2, 4), (4, 5))]
    assert [matches.tolist() for _, _, matches in links] == [[[1, 2]], [[1, 5]], [[2, 4]], [[4, 5]]]
    folder = out / "groups" / "00001"
    assert [read_model(folder, at).image_ids[0] for at in (0, 1)] == ["p.jpg", "s.jpg"]
    assert reconstruction.map_group(out, 1, config) == done | {"resumed": 1} and len(asked) == 1


def test_a_group_is_mapped_without_a_photo_that_ends_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, config = Folder.of(tmp_path), ReconstructConfig(rounds=0, min_images=2, min_points=1)
    names = write_photos(out, 4)
    write_links(out, [(0, 1, 30), (1, 2, 30), (2, 3, 30)])
    write_groups(out, [0, 0, 0, 0], rounds=1)
    asked: list[Any] = []

    def map_images(found: dict[str, Features], links: list[mapping.Link], *, min_images: int) -> list[SparseModel]:
        asked.append((sorted(found), [(a, b) for a, b, _ in links]))
        return []

    monkeypatch.setattr(mapping, "map_images", map_images)
    assert reconstruction.try_mapping(out, 0, config, []) == names and asked == []
    assert reconstruction.try_mapping(out, 0, config, [2, 3]) == names
    assert not (out / "groups").list() and reconstruction.left_out(out) == {}
    done = reconstruction.map_group(out, 0, config, {1: BadImage("crashed", "SIGABRT")})
    assert (done["taken"], done["broken"]) == (4, 1)
    assert asked == [
        ([names[2], names[3]], [(names[2], names[3])]),
        ([names[0], names[2], names[3]], [(names[2], names[3])]),
    ]
    (row,) = out.read_table("rejected/models-00000.parquet").to_pylist()
    assert row == {"image_id": names[1], "stage": "models", "reason": "crashed", "detail": "SIGABRT"}
    assert reconstruction.left_out(out) == {names[1]: "crashed"}


def write_group(out: Folder, number: int, models: list[SparseModel]) -> None:
    for at, model in enumerate(models):
        reconstruction.write_model(out / "groups" / f"{number:05d}", at, model)
    (out / "groups" / f"{number:05d}").write_json("done.json", {"models": len(models), "registered": 0})


def test_every_photo_is_in_a_model_or_has_the_reason_that_it_is_not(tmp_path: Path) -> None:
    out, config = Folder.of(tmp_path), ReconstructConfig(min_shared=10, val_fraction=0)
    names = [f"{letter}.jpg" for letter in "abcdefghijk"]
    num = [50, 50, 50, 50, 50, 50, 50, MIN_LINK, MIN_LINK - 1, 50, 50]
    out.write_table("photos.parquet", pa.table({"image_id": names, "num": num}))
    columns = {
        "group": [0, 0, 0, 1, 1, -1, -1, -1, -1, 1, 0],
        "whole": [0, 0, 0, 1, 1, -1, -1, -1, -1, 1, 0],
        "cluster": [0, 0, 0, 1, 1, 1, 1, 2, 3, 1, 0],
        "linked": [True] * 7 + [False, False, True, True],
        "strong": [True] * 6 + [False, False, False, True, True],
    }
    out.write_table("groups.parquet", pa.table({"image_id": names, **columns}))
    write_group(out, 0, [model_of("abc", 12)])
    write_group(out, 1, [model_of("de", 9)])
    stages.write_left_out(out, "models", 0, {"k.jpg": BadImage("crashed", "SIGSEGV")})
    told = reconstruction.assemble(out, 2, config)
    rows = {row["image_id"][0]: row for row in out.read_table("images.parquet").to_pylist()}
    reasons = {name: row["reason"] for name, row in rows.items() if row["model"] < 0}
    assert reasons == {
        "f": reconstruction.SMALL_GROUP,
        "g": reconstruction.WEAK_LINK,
        "h": reconstruction.NO_LINK,
        "i": reconstruction.NO_KEYPOINTS,
        "j": reconstruction.NOT_MAPPED,
        "k": "crashed",
    }
    assert [rows[name]["model"] for name in "abcde"] == [0, 0, 0, 1, 1]
    assert [rows[name]["cluster"] for name in "abcdefghijk"] == columns["cluster"]
    assert told == {
        "images": 11,
        "registered": 5,
        "unregistered": dict.fromkeys(sorted(reasons.values()), 1),
        "models": 2,
        "points": 21,
        "clusters": 4,
        "queries": 3,  # d and e share nine points, not ten
    }
    found = {row["query"]: row["candidates"] for row in out.read_table("tuples.parquet").to_pylist()}
    assert sorted(found) == ["a.jpg", "b.jpg", "c.jpg"] and found["a.jpg"] == ["b.jpg", "c.jpg"]
    assert [read_model(out, at).image_ids[0] for at in (0, 1)] == ["a.jpg", "d.jpg"]


def test_places_to_validate_on_are_drawn_by_the_seed(tmp_path: Path) -> None:
    drawn = []
    for seed in range(6):
        out = Folder.of(tmp_path / str(seed))
        names = [f"{letter}.jpg" for letter in "abcdefghijkl"]
        cluster = [number // 2 for number in range(12)]
        out.write_table("photos.parquet", pa.table({"image_id": names, "num": [50] * 12}))
        same = {"group": [0] * 12, "whole": [0] * 12, "linked": [True] * 12, "strong": [True] * 12}
        out.write_table("groups.parquet", pa.table({"image_id": names, "cluster": cluster, **same}))
        write_group(out, 0, [model_of("abcdefghijkl"[at : at + 2]) for at in range(0, 12, 2)])
        reconstruction.assemble(out, 1, ReconstructConfig(val_fraction=0.34, seed=seed))
        images = out.read_table("images.parquet").to_pylist()
        drawn.append(tuple(sorted({row["cluster"] for row in images if row["split"] == "val"})))
    assert {len(clusters) for clusters in drawn} == {2} and len(set(drawn)) > 2
