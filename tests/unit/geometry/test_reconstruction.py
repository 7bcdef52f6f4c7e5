"""From unordered photos to tuples, on drawn places that COLMAP truly reconstructs."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from retrieval.artifacts.collection import CATALOG_SCHEMA
from retrieval.artifacts.folder import Folder
from retrieval.data.demo.places import building, photograph, write_scenes
from retrieval.data.demo.settings import SceneConfig
from retrieval.data.settings import SplitConfig
from retrieval.geometry import pairing, reconstruction, sparse_model, stages
from retrieval.geometry.features import Features, extract, match, verify
from retrieval.geometry.settings import ReconstructConfig
from retrieval.geometry.sparse_model import SparseModel
from retrieval.geometry.vocabulary import InvertedFile, Quantiser, candidate_pairs, train_words
from retrieval.images.pixels import encode_jpeg
from tests.support.places import SMALL, collect, find_pairs_here, reconstruct_here, small_places

CONFIG = ReconstructConfig(num_words=512, num_candidates=8, max_features=1024, min_shared=10)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return small_places(tmp_path_factory.mktemp("places"))


@pytest.fixture(scope="module")
def found(places: Folder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, dict[str, object]]:
    out = Folder.of(tmp_path_factory.mktemp("tuples"))
    return out, reconstruct_here(places, out, CONFIG)


def place_of(image_id: str) -> str:
    return image_id.split("/")[-2] if "place" in image_id else image_id


def test_every_place_is_reconstructed_and_the_books_balance(found: tuple[Folder, dict[str, object]]) -> None:
    out, counts = found
    images = out.read_table("images.parquet").to_pylist()
    registered = [row for row in images if row["status"] == "registered"]
    assert counts["models"] == SMALL.num_places
    assert len(registered) >= 0.8 * SMALL.num_places * SMALL.images_per_place
    assert len(registered) + sum(counts["unregistered"].values()) == len(images) == 21  # type: ignore[attr-defined]
    assert all((row["reason"] is None) == (row["model"] >= 0) == (row["num_points"] > 0) for row in images)
    for row in images:
        if "distractors" in row["image_id"]:
            assert (row["status"], row["reason"]) == ("unregistered", reconstruction.NO_LINK)


def test_no_model_mixes_places_and_positives_are_of_the_same_place(found: tuple[Folder, dict[str, object]]) -> None:
    out, _ = found
    by_model: dict[int, set[str]] = {}
    clusters: dict[str, set[int]] = {}
    for row in out.read_table("images.parquet").to_pylist():
        if row["model"] >= 0:
            by_model.setdefault(row["model"], set()).add(place_of(row["image_id"]))
        clusters.setdefault(place_of(row["image_id"]), set()).add(row["cluster"])
    assert all(len(names) == 1 for names in by_model.values())
    numbers = [number for names in clusters.values() for number in names]
    assert len(numbers) == len(set(numbers))  # so that a negative is never of the query's place
    rows = out.read_table("tuples.parquet").to_pylist()
    pairs = [(row["query"], other) for row in rows for other in row["candidates"]]
    assert len(pairs) > 30
    assert all(place_of(a) == place_of(b) and a != b for a, b in pairs)


def test_the_same_photos_give_the_same_tuples_whatever_is_done_again(
    places: Folder, found: tuple[Folder, dict[str, object]], tmp_path: Path
) -> None:
    out, _ = found
    again = Folder.of(tmp_path / "again")
    shutil.copytree(out.path, again.path)
    lost = (
        "features/part-00001",
        "words/part-00000",
        "candidates/block-00001",
        "pairs/round-1",
        "links/round-0/block-00000",
        "tuples",
    )
    for name in lost:
        again.remove(f"{name}.parquet")
    shutil.rmtree(Path(again.path) / "groups" / "00001")
    reconstruct_here(places, again, CONFIG)
    for name in ("pairs/round-1.parquet", "images.parquet", "tuples.parquet"):
        assert again.read_table(name).equals(out.read_table(name))


def test_fewer_pairs_are_checked_than_there_are(found: tuple[Folder, dict[str, object]]) -> None:
    out, _ = found
    assert len(out.read_table("pairs/round-0.parquet")) < 21 * 20 / 2


def write_links(out: Folder, round_: int, pairs: list[tuple[int, int]]) -> None:
    rows = [{"a": a, "b": b, "num_inliers": 30, "matches": b""} for a, b in pairs]
    out.write_table(f"links/round-{round_}/block-00000.parquet", pa.Table.from_pylist(rows, stages.LINKS))


def pairs_table(pairs: list[tuple[int, int]]) -> pa.Table:
    return pa.Table.from_pylist([{"a": a, "b": b} for a, b in pairs], pairing._PAIRS)


def checked(out: Folder, round_: int) -> set[tuple[int, int]]:
    return {(row["a"], row["b"]) for row in out.read_table(f"pairs/round-{round_}.parquet").to_pylist()}


def test_photos_that_link_to_one_photo_are_checked_next(tmp_path: Path) -> None:
    out, config = Folder.of(tmp_path), ReconstructConfig(num_candidates=2)
    out.write_table("photos.parquet", pa.table({"part": pa.array([0] * 6, pa.int32())}))
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
    out.write_table("photos.parquet", pa.table({"part": pa.array([0] * 50, pa.int32())}))
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
    out.write_table("photos.parquet", pa.table({"part": pa.array([0] * 30, pa.int32())}))
    out.write_table("pairs/round-0.parquet", pairs_table(tried))
    write_links(out, 0, links)
    monkeypatch.setattr(pairing, "_ROWS_AT_ONCE", rows)
    assert pairing.follow_links(out, 1, ReconstructConfig(num_candidates=2)) == len(wanted) > 20
    assert checked(out, 1) == wanted


@pytest.mark.parametrize("size", [1, 5, 100])
def test_pairs_by_parts_and_blocks_are_those_of_all_photos_at_once(
    places: Folder, found: tuple[Folder, dict[str, object]], tmp_path: Path, size: int
) -> None:
    out, _ = found
    photos = out.read_table("photos.parquet").to_pylist()
    words = np.frombuffer(out.read_bytes("vocabulary.f32"), np.float32).reshape(-1, 128)
    features = {part: stages.features_of_part(out, part) for part in {row["part"] for row in photos}}
    own = [Quantiser(words).assign(features[row["part"]][row["image_id"]].descriptors) for row in photos]
    assert [row["num"] for row in photos] == [len(names) for names in own]
    pairs = sorted(set(candidate_pairs(InvertedFile.build(own, len(words)), range(len(photos)), CONFIG.num_candidates)))
    pairs.sort(key=lambda pair: (photos[pair[0]]["part"], photos[pair[1]]["part"], pair))
    again = Folder.of(tmp_path)
    shutil.copytree(Path(out.path) / "features", tmp_path / "features")
    find_pairs_here(places, again, CONFIG, sorted(features), -(-len(photos) // size), size)
    assert [(row["a"], row["b"]) for row in again.read_table("pairs/round-0.parquet").to_pylist()] == pairs


def test_one_photo_has_no_pair(tmp_path: Path) -> None:
    scenes = SceneConfig(num_places=1, images_per_place=1, num_distractors=0, size=256)
    split = SplitConfig(keep_singles=True, test_fraction=0, val_fraction=0)
    collection = collect(Folder.of(tmp_path / "c"), write_scenes(tmp_path / "photos", scenes), split)
    with pytest.raises(ValueError, match="No two of the 1 photos share a place"):
        reconstruct_here(collection, Folder.of(tmp_path / "out"), CONFIG)
    assert not len(Folder.of(tmp_path / "out").read_table("pairs/round-0.parquet"))


def test_photos_that_share_nothing_make_no_tuples(tmp_path: Path) -> None:
    source = write_scenes(
        tmp_path / "photos", SceneConfig(num_places=1, images_per_place=1, num_distractors=5, size=256)
    )
    split = SplitConfig(keep_singles=True, test_fraction=0, val_fraction=0)
    collection = collect(Folder.of(tmp_path / "c"), source, split)
    with pytest.raises(ValueError, match="No two of the 6 photos share a place.*--labels-as-clusters"):
        reconstruct_here(collection, Folder.of(tmp_path / "out"), CONFIG)


def test_only_blank_photos_are_refused(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path / "c")
    black = encode_jpeg(np.zeros((200, 300, 3), np.uint8))
    folder.write_table("images/part-00000.parquet", pa.table({"jpeg": [black, black]}))
    rows = [{"image_id": name, "split": "train", "part": 0, "row": row} for row, name in enumerate("ab")]
    folder.write_table("catalog.parquet", pa.Table.from_pylist(rows, CATALOG_SCHEMA))
    with pytest.raises(ValueError, match="None of the 2 photos shows any local feature"):
        reconstruct_here(folder, Folder.of(tmp_path / "out"), CONFIG)


def test_components_are_the_transitive_closure() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 30, size=(2, 22))
    slow = np.arange(30)
    for _ in range(30):
        for x, y in zip(a, b, strict=True):
            slow[x] = slow[y] = min(slow[x], slow[y])
    assert reconstruction.components(30, a, b).tolist() == slow.tolist()


def test_a_model_without_some_images_keeps_what_two_others_see() -> None:
    model = SparseModel(
        image_ids=["a", "b", "c"],
        centres=np.eye(3),
        directions=np.eye(3),
        points=np.arange(6.0).reshape(2, 3),
        colours=np.zeros((2, 3), np.uint8),
        obs_image=np.array([0, 1, 2, 0, 1]),
        obs_point=np.array([0, 0, 0, 1, 1]),
        obs_scale=np.ones(5),
    )
    left = sparse_model.without(model, {"a"})
    assert left.image_ids == ["b", "c"]
    assert left.points.tolist() == [[0.0, 1.0, 2.0]]  # point 1 is seen by b alone
    assert (left.obs_image.tolist(), left.obs_point.tolist()) == ([0, 1], [0, 0])


# -- local features and words ----------------------------------------------------------------------------------------


def photo(place: int, number: int) -> Features:
    return extract(encode_jpeg(photograph(building(7, place), SMALL, place, number)), max_features=800)


def test_two_photos_of_a_building_fit_one_geometry_and_two_buildings_do_not() -> None:
    same, other = verify(photo(0, 2), photo(0, 3)), verify(photo(0, 2), photo(1, 3))
    assert same.num_inliers > 40 > 15 > other.num_inliers
    assert verify(photo(0, 2), photo(0, 3)).matches.tolist() == same.matches.tolist()


def test_matching_equals_the_slow_definition() -> None:
    a, b = photo(0, 2), photo(0, 3)
    x, y = (
        f.descriptors.astype(np.float64) / np.linalg.norm(f.descriptors.astype(np.float64), axis=1)[:, None]
        for f in (a, b)
    )
    apart = np.linalg.norm(x[:, None, :] - y[None, :, :], axis=2)
    slow = []
    for row in range(len(x)):
        one, two = np.argsort(apart[row])[:2]
        back = np.argsort(apart[:, one])[:2]
        if back[0] == row and apart[row, one] < 0.8 * apart[row, two] and apart[row, one] < 0.8 * apart[back[1], one]:
            slow.append((row, one))
    assert match(a, b).tolist() == [list(map(int, pair)) for pair in slow]


@pytest.mark.parametrize("shape", [(200, 300), (3, 3), (3, 300), (15, 400)])
def test_a_photo_that_shows_nothing_has_no_features_and_no_match(shape: tuple[int, int]) -> None:
    data = io.BytesIO()
    Image.new("RGB", (shape[1], shape[0])).save(data, "JPEG")
    blank = extract(data.getvalue())
    assert len(blank.keypoints) == len(blank.descriptors) == len(blank.colours) == 0
    assert verify(blank, photo(0, 2)).num_inliers == 0


def test_what_is_no_photo_is_refused() -> None:
    with pytest.raises(ValueError, match="is no JPEG"):
        extract(b"nothing")


def test_the_inverted_file_ranks_as_dense_tf_idf_does() -> None:
    rng = np.random.default_rng(0)
    words = [rng.integers(0, 60, size=rng.integers(5, 40)) for _ in range(25)]
    dense = np.zeros((25, 60))
    for row, own in enumerate(words):
        np.add.at(dense[row], own, 1)
    photos_with = (dense > 0).sum(axis=0)
    weight = np.sqrt(dense) * np.log(25 / np.maximum(photos_with, 1))
    weight /= np.maximum(np.linalg.norm(weight, axis=1, keepdims=True), 1e-12)
    cosines = weight @ weight.T
    file = InvertedFile.build(words, 60)
    for row in range(25):
        rows, scores = file.nearest(row, 6)
        assert np.allclose(scores, cosines[row, rows], atol=1e-6)
        others = np.delete(np.arange(25), row)
        assert np.allclose(np.sort(scores)[::-1], np.sort(cosines[row, others])[::-1][: len(scores)], atol=1e-6)
    pairs = set(candidate_pairs(file, range(25), 3))
    assert all(a < b for a, b in pairs)
    assert len(pairs) <= 75


def test_words_are_the_nearest_centroids() -> None:
    rng = np.random.default_rng(1)
    sample = rng.integers(0, 255, size=(600, 128)).astype(np.uint8)
    words = train_words(sample, 40, seed=3)
    assert words.shape == (40, 128)
    assert np.array_equal(words, train_words(sample, 40, seed=3))
    apart = ((sample[:50, None, :].astype(np.float64) - words[None]) ** 2).sum(axis=2)
    assert Quantiser(words).assign(sample[:50]).tolist() == apart.argmin(axis=1).tolist()
