"""Local features of a collection: each photo once, kept as they were taken, read by place."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.collection import CATALOG_SCHEMA, Jpegs, read_catalog
from retrieval.artifacts.folder import Folder
from retrieval.geometry import extraction
from retrieval.geometry.extraction import NETWORK, KeptFeatures, extract_part, parts_of
from retrieval.geometry.extractors.aliked import Aliked
from retrieval.geometry.extractors.sift import sift
from retrieval.geometry.features import Extractor, Features, extract
from retrieval.geometry.settings import FeatureConfig
from retrieval.images.pixels import BadImage
from tests.support.local import blank_features, random_aliked
from tests.support.places import small_places


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return small_places(tmp_path_factory.mktemp("places"))


def test_features_are_those_of_the_part_s_photos_of_the_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection, out = Folder.of(tmp_path / "c"), Folder.of(tmp_path / "out")
    rows = [("a", "train", 0, 2), ("b", "val", 0, 1), ("c", "train", 1, 0), ("d", "train", 0, 0)]
    table = [dict(zip(("image_id", "split", "part", "row"), row, strict=True)) for row in rows]
    collection.write_table("catalog.parquet", pa.Table.from_pylist(table, CATALOG_SCHEMA))
    collection.write_table("images/part-00000.parquet", pa.table({"jpeg": [b"d", b"b", b"a"]}))
    asked = []

    def extract(jpeg: bytes, *, max_features: int, max_side: int | None, extractor: object) -> Features:
        assert extractor is sift
        asked.append((jpeg, max_features, max_side))
        return blank_features(ord(jpeg))

    monkeypatch.setattr(extraction, "extract", extract)
    config = FeatureConfig(max_features=7, max_side=300)
    done = extraction.extract_part(collection, out, 0, ("train",), config)
    assert done == {"part": 0, "taken": 2, "broken": 0, "features": ord("a") + ord("d"), "resumed": 0}
    assert sorted(asked) == [(b"a", 7, 300), (b"d", 7, 300)]
    stored = out.read_table("features/part-00000.parquet")
    assert dict(zip(*(stored[name].to_pylist() for name in ("image_id", "num")))) == {"a": ord("a"), "d": ord("d")}
    assert dict(zip(*(stored[name].to_pylist() for name in ("image_id", "row")))) == {"a": 2, "d": 0}
    again = extraction.extract_part(collection, out, 0, ("train",), config)
    assert again == done | {"resumed": 1} and len(asked) == 2


@pytest.mark.parametrize("kind", ["sift", "aliked"])
def test_what_is_read_is_what_was_taken(
    places: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Of either kind, by place, in whatever order, also where little stays in memory."""
    monkeypatch.setitem(extraction._AS_KEPT, "row_group_size", 3)
    out, config = Folder.of(tmp_path), FeatureConfig(max_features=40, max_side=200)
    extractor: Extractor = sift
    if kind == "aliked":
        config = FeatureConfig(extractor="aliked", weights="w.pth", max_features=40, max_side=200)
        out.write_bytes(NETWORK, random_aliked())
        extractor = Aliked(random_aliked())
    parts, num = parts_of(places, ("train",))
    rows = [extract_part(places, out, part, ("train",), config) for part in parts]
    assert (parts, num) == ([0, 1, 2], 21) and sum(row["taken"] for row in rows) == 21
    kept = KeptFeatures(out)
    catalog = read_catalog(places, ("train",)).to_pylist()
    where = [(row["part"], row["row"]) for row in catalog]
    jpegs = Jpegs(places).read(where)
    for place in [where[at] for at in np.random.default_rng(0).permutation(21)[:9]]:
        fresh, found = extract(jpegs[place], max_features=40, max_side=200, extractor=extractor), kept[place]
        for name in ("keypoints", "descriptors", "colours"):
            one, two = getattr(fresh, name), getattr(found, name)
            assert one.dtype == two.dtype and np.array_equal(one, two), name
        assert (fresh.width, fresh.height) == (found.width, found.height)
        assert len(found.keypoints) > 20


def test_for_a_photo_no_column_of_all_is_read(places: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Folder.of(tmp_path)
    extract_part(places, out, 1, ("train",), FeatureConfig(max_features=10, max_side=64))
    monkeypatch.setattr(Folder, "read_table", None)
    assert KeptFeatures(out)[1, 2].width > 64
    with pytest.raises(ValueError, match="no features of row 77 of part 1"):
        KeptFeatures(out)[1, 77]


def test_few_photos_stay_in_memory(places: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, config = Folder.of(tmp_path), FeatureConfig(max_features=10, max_side=64)
    for part in range(3):
        extract_part(places, out, part, ("train",), config)
    monkeypatch.setattr(extraction, "_HELD", 8)
    kept = KeptFeatures(out)
    first = kept[0, 0]
    for place in ((0, 1), (1, 2), (2, 4), (0, 7), (1, 7)):
        assert kept[place].width > 64
        assert len(kept._held) <= 8 and place in kept._held
    assert np.array_equal(kept[0, 0].descriptors, first.descriptors)


def test_threads_that_read_at_once_get_each_photo_s_own(places: Folder, tmp_path: Path) -> None:
    out, config = Folder.of(tmp_path), FeatureConfig(max_features=10, max_side=64)
    for part in range(3):
        extract_part(places, out, part, ("train",), config)
    asked = [(part, row) for part in range(3) for row in range(5)] * 8
    alone, kept = KeptFeatures(out), KeptFeatures(out, held=8)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(kept.__getitem__, asked))
    for place, one in zip(asked, found, strict=True):
        assert np.array_equal(one.descriptors, alone[place].descriptors)
    assert len(kept._held) <= 8


def test_a_photo_without_features_is_missed_by_name(places: Folder, tmp_path: Path) -> None:
    out = Folder.of(tmp_path)
    extract_part(places, out, 0, ("train",), FeatureConfig(max_features=10, max_side=64))
    for place in ((0, 99), (7, 0)):
        with pytest.raises(ValueError, match=f"no features of row {place[1]} of part {place[0]}.*ray_jobs.describe"):
            KeptFeatures(out)[place]
    with pytest.raises(ValueError, match="has no photo in the splits query"):
        parts_of(places, ("query",))


def test_a_photo_that_is_left_out_is_there_with_nothing(places: Folder, tmp_path: Path) -> None:
    out, left = Folder.of(tmp_path), {1: BadImage("timed-out", "not done within 3 s")}
    done = extract_part(places, out, 0, ("train",), FeatureConfig(max_features=10, max_side=64), without=left)
    assert done["broken"] == 1
    row = out.read_table("features/part-00000.parquet")["row"].to_pylist()[1]
    assert not len(KeptFeatures(out)[0, row].keypoints)
