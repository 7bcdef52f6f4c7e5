"""Which pairs are checked: those by words, whatever the blocks, then those that follow links, by slow definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.collection import CATALOG_SCHEMA, read_catalog
from retrieval.artifacts.folder import Folder, part_name
from retrieval.geometry import pairing, stages
from retrieval.geometry.features import Features
from retrieval.geometry.settings import ReconstructConfig
from retrieval.geometry.vocabulary import Quantiser, histogram, train_words
from tests.support.places import find_pairs_here

CONFIG = ReconstructConfig(num_words=32, num_candidates=4, vocabulary_sample=300)
NUM_PHOTOS, NUM_PARTS = 21, 3


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, Folder]:
    """A collection's catalogue, and a folder with drawn features of its photos: of every third group alike."""
    collection, out = (Folder.of(tmp_path_factory.mktemp(name)) for name in ("collection", "out"))
    rng, rows = np.random.default_rng(0), []
    things = rng.integers(0, 200, (7, 40, 128))
    stored: dict[int, dict[str, Features]] = {part: {} for part in range(NUM_PARTS)}
    for number in range(NUM_PHOTOS):
        part, own = (number * 5) % NUM_PARTS, stored[(number * 5) % NUM_PARTS]
        name = f"{number:02d}.jpg"
        split = "test" if number in (4, 11) else "val" if number == 7 else "train"
        rows.append({"image_id": name, "label": f"l{number % 2}", "split": split, "part": part, "row": len(own)})
        num = 40 - number // 2  # two and two have as many
        descriptors = np.clip(things[number % 7][:num] + rng.integers(0, 50, (num, 128)), 0, 255).astype(np.uint8)
        blank = np.zeros((num, 4), np.float32)
        own[name] = Features(
            keypoints=blank, descriptors=descriptors, colours=np.zeros((num, 3), np.uint8), width=9, height=9
        )
    collection.write_table("catalog.parquet", pa.Table.from_pylist(rows, CATALOG_SCHEMA))
    for part, found in stored.items():
        out.write_table(
            f"features/{part_name(part)}", stages.features_table(list(found), list(found.values()), range(len(found)))
        )
    return collection, out


def copied(out: Folder, where: Path) -> Folder:
    again = Folder.of(where)
    for name in out.list():
        if name.startswith("features/"):
            again.write_bytes(name, out.read_bytes(name))
    return again


def pairs_of(out: Folder, round_: int = 0) -> list[tuple[int, int]]:
    return [(row["a"], row["b"]) for row in out.read_table(f"pairs/round-{round_}.parquet").to_pylist()]


@pytest.mark.parametrize("size", [1, 5, 100])
def test_pairs_by_parts_and_blocks_are_those_of_all_photos_at_once(
    collected: tuple[Folder, Folder], tmp_path: Path, size: int
) -> None:
    collection, out = collected[0], copied(collected[1], tmp_path)
    num = NUM_PHOTOS - 3  # those to train with
    find_pairs_here(collection, out, CONFIG, list(range(NUM_PARTS)), -(-num // size), size)
    photos = out.read_table("photos.parquet").to_pylist()
    assert [row["image_id"] for row in photos] == [f"{n:02d}.jpg" for n in range(NUM_PHOTOS) if n not in (4, 7, 11)]
    assert [row["label"] for row in photos[:4]] == ["l0", "l1", "l0", "l1"]
    assert [row["part"] for row in photos[:4]] == [0, 2, 1, 0]
    words = np.frombuffer(out.read_bytes("vocabulary.f32"), np.float32).reshape(-1, 128)
    features = {part: dict(stages.features_of_part(out, part)) for part in range(NUM_PARTS)}
    own = [Quantiser(words).assign(features[row["part"]][row["image_id"]].descriptors) for row in photos]
    assert [row["num"] for row in photos] == [len(names) for names in own]
    apart = np.stack([histogram(names, len(words)) for names in own]).astype(np.float64)
    apart -= apart.mean(axis=0)
    apart /= np.linalg.norm(apart, axis=1, keepdims=True)
    alike = apart @ apart.T
    np.fill_diagonal(alike, -9)
    best = np.argsort(-alike, axis=1)[:, : CONFIG.num_candidates]
    pairs = {(min(at, int(other)), max(at, int(other))) for at in range(num) for other in best[at]}
    expected = sorted(pairs, key=lambda pair: (photos[pair[0]]["part"], photos[pair[1]]["part"], pair))
    assert pairs_of(out) == expected != sorted(pairs)
    assert len(expected) < num * (num - 1) / 2


def test_the_vocabulary_is_drawn_of_all_photos_alike_by_the_seed(
    collected: tuple[Folder, Folder], tmp_path: Path
) -> None:
    """300 descriptors of 18 photos are 16 a photo."""
    collection, first = collected[0], copied(collected[1], tmp_path / "a")
    assert pairing.train_vocabulary(collection, first, ("train",), CONFIG) == 32
    photos = read_catalog(collection, ("train",))
    sample = pairing._sample(first, photos, CONFIG)
    assert len(sample) == 16 * 18
    drawn = set()
    for part in range(NUM_PARTS):
        for image_id, found in stages.features_of_part(first, part):
            mine = [at for at, row in enumerate(found.descriptors.tolist()) if row in sample.tolist()]
            assert len(mine) == (16 if image_id in photos["image_id"].to_pylist() else 0) and mine != list(range(16))
            drawn.add(tuple(mine))
    assert len(drawn) == 18 + 1  # each photo draws its own, of however many; those that do not train none
    for where, seed, equal in (("b", 0, True), ("c", 1, False)):
        out = copied(collected[1], tmp_path / where)
        config = ReconstructConfig(num_words=32, vocabulary_sample=300, seed=seed)
        pairing.train_vocabulary(collection, out, ("train",), config)
        assert (out.read_bytes("vocabulary.f32") == first.read_bytes("vocabulary.f32")) == equal
        words = train_words(pairing._sample(out, photos, config), 32, seed)
        assert out.read_bytes("vocabulary.f32") == words.tobytes()
    other = pairing._sample(first, photos, ReconstructConfig(vocabulary_sample=300, seed=1))
    assert sorted(other.tolist()) != sorted(sample.tolist())


def test_more_photos_than_the_sample_give_one_descriptor_each(collected: tuple[Folder, Folder]) -> None:
    photos = read_catalog(collected[0], ("train", "val", "test"))
    assert len(pairing._sample(collected[1], photos, ReconstructConfig(vocabulary_sample=5))) == len(photos) > 18


def test_words_are_trained_on_some_photos_of_many(
    collected: tuple[Folder, Folder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five of 21, drawn by the seed, each of which then gives more."""
    photos = read_catalog(collected[0], ("train", "val", "test"))
    monkeypatch.setattr(pairing, "SAMPLED", 5)
    drawn = [pairing._sample(collected[1], photos, ReconstructConfig(vocabulary_sample=50, seed=n)) for n in (0, 0, 1)]
    assert {len(one) for one in drawn} == {50}
    assert drawn[0].tolist() == drawn[1].tolist() != drawn[2].tolist()
    alike = [
        found.descriptors.tolist()
        for part in range(NUM_PARTS)
        for _, found in stages.features_of_part(collected[1], part)
    ]
    holds = [sum(row in own for row in drawn[0].tolist()) for own in alike]
    assert sorted(holds)[-5:] == [10] * 5 and sum(holds) == 50


def test_a_photo_that_was_not_described_is_named(collected: tuple[Folder, Folder], tmp_path: Path) -> None:
    collection, described, out = *collected, Folder.of(tmp_path)
    own = described.read_table("features/part-00001.parquet")
    kept = Folder.of(tmp_path / "kept")
    for part in range(NUM_PARTS):
        table = own.slice(1) if part == 1 else described.read_table(f"features/{part_name(part)}")
        kept.write_table(f"features/{part_name(part)}", table)
    with pytest.raises(ValueError, match="holds no features of row 0 of part 1.*Describe them too"):
        pairing.train_vocabulary(collection, out, ("train",), CONFIG, kept)


def test_what_is_there_is_not_made_again(
    collected: tuple[Folder, Folder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairing, "SLICE", 5)
    collection, out = collected[0], copied(collected[1], tmp_path)
    pairing.train_vocabulary(collection, out, ("train",), CONFIG)
    assert pairing.assign_part(out, 1) == {"part": 1, "taken": 7, "resumed": 0}
    assert pairing.assign_part(out, 1) == {"part": 1, "taken": 7, "resumed": 1}
    for part in (0, 2):
        pairing.assign_part(out, part)
    assert [pairing.list_photos(collection, out, ("train",)) for _ in range(2)] == [18, 18]
    made = [pairing.write_slice(out, number) for number in (0, 1, 2, 3, 2)]
    assert [(row["number"], row["taken"], row["resumed"]) for row in made] == [
        (0, 5, 0),
        (1, 5, 0),
        (2, 5, 0),
        (3, 3, 0),
        (2, 5, 1),
    ]
    found = list(pairing.slices(out, 0, 18))
    assert [first for first, _ in found] == [0, 5, 10, 15]
    vectors = np.concatenate([some for _, some in found])
    words = out.done("vocabulary.f32")
    assert words is not None and vectors.shape == (18, words.about["words"] + 1)
    for start, stop in ((0, 3), (4, 11), (15, 18), (7, 8)):
        some = np.concatenate([some for _, some in pairing.slices(out, start, stop)])
        assert np.array_equal(some, vectors[start:stop])
    mean = np.delete(vectors, -1, axis=1).astype(np.float32).mean(axis=0)
    assert np.abs(mean).max() < 0.15, "the mean is taken off"
    done = [pairing.look_up_block(out, block, 7, 18, CONFIG) for block in (0, 1, 2, 2)]
    assert [(row["block"], row["taken"], row["resumed"]) for row in done] == [
        (0, 7, 0),
        (1, 7, 0),
        (2, 4, 0),
        (2, 4, 1),
    ]
    each = [pair for start in (0, 7, 14) for pair in out.read_table(f"candidates/from-{start:09d}.parquet").to_pylist()]
    assert pairing.join_blocks(out, 7, 18) == len({(row["a"], row["b"]) for row in each}) < len(each)
    kept = {name for name in out.list() if not name.startswith("vectors/")}
    pairing.remove_vectors(out)
    pairing.remove_vectors(out)
    assert set(out.list()) == kept
    before = out.read_bytes("vocabulary.f32")
    out.write_bytes("vocabulary.f32", before[: 128 * 4 * 3], about={"words": 3})
    assert pairing.train_vocabulary(collection, out, ("train",), CONFIG) == 3  # it is read, not trained


def test_a_photo_that_was_not_described_is_named_however_many_are(
    collected: tuple[Folder, Folder], tmp_path: Path
) -> None:
    """Also where the words were learned of others."""
    out = copied(collected[1], tmp_path)
    find_pairs_here(collected[0], out, CONFIG, list(range(NUM_PARTS)), 1, 100)
    table = out.read_table("words/part-00001.parquet")
    missed = next(name for name in table["image_id"].to_pylist() if name not in ("04.jpg", "07.jpg", "11.jpg"))
    kept = [at for at, name in enumerate(table["image_id"].to_pylist()) if name != missed]
    out.write_table("words/part-00001.parquet", table.take(pa.array(kept)))
    out.remove("mean.f32")
    with pytest.raises(ValueError, match=f"no local features of {missed}: .*Describe it too"):
        pairing.list_photos(collected[0], out, ("train",))


def test_photos_without_any_feature_make_no_vocabulary(tmp_path: Path) -> None:
    collection, out = Folder.of(tmp_path / "c"), Folder.of(tmp_path / "out")
    rows = [{"image_id": name, "split": "train", "part": 0, "row": row} for row, name in enumerate("ab")]
    collection.write_table("catalog.parquet", pa.Table.from_pylist(rows, CATALOG_SCHEMA))
    none = Features(
        keypoints=np.empty((0, 4), np.float32),
        descriptors=np.empty((0, 128), np.uint8),
        colours=np.empty((0, 3), np.uint8),
        width=9,
        height=9,
    )
    out.write_table(f"features/{part_name(0)}", stages.features_table(["a", "b"], [none, none], [0, 1]))
    with pytest.raises(ValueError, match="None of the 2 photos shows any local feature"):
        pairing.train_vocabulary(collection, out, ("train",), CONFIG)
    assert not out.exists("vocabulary.f32")


def write_links(out: Folder, round_: int, pairs: list[tuple[int, int]]) -> None:
    rows = [{"a": a, "b": b, "num_inliers": 30, "matches": b""} for a, b in pairs]
    out.write_table(f"links/round-{round_}/block-00000.parquet", pa.Table.from_pylist(rows, stages.LINKS))


def pairs_table(pairs: list[tuple[int, int]]) -> pa.Table:
    return pa.Table.from_pylist([{"a": a, "b": b} for a, b in pairs], pairing._CANDIDATES)


def photos_table(parts: list[int]) -> pa.Table:
    return pa.table({"part": pa.array(parts, pa.int32()), "row": pa.array(range(len(parts)), pa.int32())})


def checked(out: Folder, round_: int) -> set[tuple[int, int]]:
    return {(row["a"], row["b"]) for row in out.read_table(f"pairs/round-{round_}.parquet").to_pylist()}


def test_photos_that_link_to_one_photo_are_checked_next(tmp_path: Path) -> None:
    out, config = Folder.of(tmp_path), ReconstructConfig(num_candidates=2)
    out.write_table("photos.parquet", photos_table([0] * 6))
    first = [(0, 1), (1, 2), (2, 3), (3, 4), (0, 2), (4, 5)]
    out.write_table("pairs/round-0.parquet", pairs_table(first))
    write_links(out, 0, [(0, 1), (1, 2), (2, 3), (3, 4)])  # (0, 2) and (4, 5) were checked and did not fit
    assert pairing.follow_links(out, 1, config) == 2
    assert checked(out, 1) == {(1, 3), (2, 4)}
    write_links(out, 1, [(1, 3)])
    assert pairing.follow_links(out, 2, config) == 2
    assert checked(out, 2) == {(0, 3), (1, 4)}


def test_a_photo_of_a_crowd_is_checked_against_those_with_most_neighbours_in_common(tmp_path: Path) -> None:
    out, config = Folder.of(tmp_path), ReconstructConfig(num_candidates=1)
    out.write_table("photos.parquet", photos_table([0] * 50))
    links = [(0, other) for other in range(1, 50)] + [(1, 2), (2, 3)]  # 1 and 3 have two neighbours in common, 0 and 2
    out.write_table("pairs/round-0.parquet", pairs_table(links))
    write_links(out, 0, links)
    assert pairing.follow_links(out, 1, config) <= 49  # of 1,176 that share a neighbour
    assert (1, 3) in checked(out, 1)


@pytest.mark.parametrize("rows", [1, 7, 4096])
def test_followed_links_are_those_of_the_slow_definition(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    tried = sorted({(int(a), int(b)) for a, b in np.sort(rng.integers(0, 30, (120, 2)), axis=1) if a != b})
    links = [pair for pair in tried if rng.random() < 0.6]
    near: dict[int, set[int]] = {photo: set() for photo in range(30)}
    for a, b in links:
        near[a].add(b)
        near[b].add(a)
    wanted = set()
    for photo in range(30):
        others = [o for o in range(30) if o != photo and (min(photo, o), max(photo, o)) not in tried]
        shared = sorted((-len(near[photo] & near[o]), o) for o in others if near[photo] & near[o])
        wanted |= {(min(photo, o), max(photo, o)) for _, o in shared[:2]}
    out = Folder.of(tmp_path)
    out.write_table("photos.parquet", photos_table([0] * 30))
    out.write_table("pairs/round-0.parquet", pairs_table(tried))
    write_links(out, 0, links)
    monkeypatch.setattr(pairing, "_ROWS_AT_ONCE", rows)
    assert pairing.follow_links(out, 1, ReconstructConfig(num_candidates=2)) == len(wanted) > 20
    assert checked(out, 1) == wanted


def test_links_are_followed_once(tmp_path: Path) -> None:
    out, config = Folder.of(tmp_path), ReconstructConfig(num_candidates=2)
    out.write_table("photos.parquet", photos_table([1, 1, 0]))
    out.write_table("pairs/round-0.parquet", pairs_table([(0, 1), (1, 2)]))
    write_links(out, 0, [(0, 1), (1, 2)])
    assert pairing.follow_links(out, 1, config) == 1
    out.remove("links/round-0/block-00000.parquet")
    assert pairing.follow_links(out, 1, config) == 1 and pairs_of(out, 1) == [(0, 2)]
    assert pairing.follow_links(out, 2, config) == 0 and pairs_of(out, 2) == []
