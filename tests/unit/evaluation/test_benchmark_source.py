"""Ground truth and photos of a benchmark meet in a manifest, in which nothing is lost."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.data.listing import list_source
from retrieval.evaluation.benchmark_source import (
    MANIFEST,
    benchmark_name,
    find_photos,
    read_truth,
    truth_fingerprint,
    write_manifest,
)
from retrieval.images.pixels import encode_jpeg


@pytest.mark.parametrize(
    ("truth", "given", "name"),
    [
        ("a/gnd_roxford5k.pkl", "", "roxford5k"),
        ("s3://b/gnd_rparis6k.pkl", "", "rparis6k"),
        ("mine.pkl", "", "mine"),
        ("gnd_roxford5k.pkl", "other-1", "other-1"),
        ("gt_files/", "oxford5k", "oxford5k"),
    ],
)
def test_the_name_is_that_of_the_file_or_as_given(truth: str, given: str, name: str) -> None:
    assert benchmark_name(truth, given) == name


@pytest.mark.parametrize(("truth", "given"), [("gt_files", ""), ("gnd_.pkl", ""), ("a.pkl", "a/b"), ("a.pkl", "-a")])
def test_a_name_that_is_none_is_refused(truth: str, given: str) -> None:
    with pytest.raises(ValueError, match=r"Name it with --name: roxford5k"):
        benchmark_name(truth, given)


def test_photos_are_found_in_any_folder() -> None:
    files = ["x/a.jpg", "b.v2.PNG", "x/y/c.jpeg", "1/n.jpg", "2/n.jpg", "z.jpg"]
    names = ["a", "b.v2", "y/c", "1/n", "not_there", "x/y/z/a"]
    assert find_photos(files, names) == {"a": "x/a.jpg", "b.v2": "b.v2.PNG", "y/c": "x/y/c.jpeg", "1/n": "1/n.jpg"}
    with pytest.raises(ValueError, match=r"Two photos are called n: 1/n\.jpg and 2/n\.jpg"):
        find_photos(files, ["n"])


def write_pickle(file: Path, images: list[str], queries: list[str]) -> str:
    entry = {"easy": [0], "hard": [1], "junk": []}
    entries = [entry | {"bbx": [1.5, 2, 30 + number, 40.25]} for number in range(len(queries))]
    file.write_bytes(pickle.dumps({"imlist": images, "qimlist": queries, "gnd": entries}))
    return str(file)


def write_photos(folder: Path, *names: str) -> str:
    data = encode_jpeg(np.zeros((48, 64, 3), np.uint8))
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return str(folder)


def test_the_manifest_is_a_source_that_ingest_takes(tmp_path: Path) -> None:
    truth = write_pickle(tmp_path / "gnd_a.pkl", ["b", "a", "gone"], ["q", "a", "q"])
    photos = write_photos(tmp_path / "jpg", "1/a.jpg", "2/b.jpg", "q.jpg", "unused.jpg")
    out = Folder.of(tmp_path / "out")
    told = write_manifest(out, truth, "a", photos)
    assert told == {"truth": truth_fingerprint(truth), "gallery": 3, "queries": 3, "missing": 1}
    source = list_source(out.uri, "manifest")
    assert [(photo.image_id, photo.split, photo.size >= 0) for photo in source.photos] == [
        ("a", "gallery", True),
        ("b", "gallery", True),
        ("gone", "gallery", False),
        ("query/a", "query", True),
        ("query/q", "query", True),
        ("query/q#2", "query", True),
    ]
    boxes = {photo.image_id: photo.box for photo in source.photos}
    assert boxes["a"] is None and boxes["query/q"] == (1.5, 2.0, 30.0, 40.25)
    assert [(boxes[name] or (0, 0, 0, 0))[2] for name in ("query/a", "query/q#2")] == [31, 32]
    assert source.photos[0].uri == f"{photos}/1/a.jpg" == source.photos[3].uri
    before = (tmp_path / "out" / MANIFEST).read_bytes()
    write_manifest(out, truth, "a", photos)
    assert (tmp_path / "out" / MANIFEST).read_bytes() == before


def write_classic(folder: Path, **lists: str) -> str:
    folder.mkdir()
    texts = {"query": "oxc1_q 1 2 30 40", "good": "a", "ok": "", "junk": ""} | lists
    for kind, text in texts.items():
        (folder / f"hall_1_{kind}.txt").write_text(text)
    (folder / "README.txt").write_text("not a list")
    return str(folder)


def test_of_a_classic_benchmark_all_photos_are_the_gallery(tmp_path: Path) -> None:
    truth = write_classic(tmp_path / "gt", ok="gone")
    out, photos = Folder.of(tmp_path / "out"), write_photos(tmp_path / "jpg", "a.jpg", "q.jpg", "z/other.jpg")
    told = write_manifest(out, truth, "oxford5k", photos)
    assert (told["gallery"], told["queries"], told["missing"]) == (4, 1, 1)
    ids = [photo.image_id for photo in list_source(out.uri).photos]
    assert ids == ["a", "gone", "other", "q", "query/q"]
    assert read_truth(truth, "oxford5k", ["a", "q"]).gallery == ("a", "gone", "q")


def test_a_changed_list_changes_the_fingerprint(tmp_path: Path) -> None:
    first, second = write_classic(tmp_path / "a"), write_classic(tmp_path / "b", ok="z")
    assert truth_fingerprint(first) == truth_fingerprint(write_classic(tmp_path / "c"))
    assert truth_fingerprint(first) != truth_fingerprint(second)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    truth = write_pickle(tmp_path / "gnd_a.pkl", ["b", "a"], ["q"])
    photos, out = write_photos(tmp_path / "jpg", "x.jpg"), Folder.of(tmp_path / "out")
    with pytest.raises(ValueError, match="There is no ground truth at .*gnd_none.pkl"):
        write_manifest(out, str(tmp_path / "gnd_none.pkl"), "none", photos)
    with pytest.raises(ValueError, match="There is no folder of photos at"):
        write_manifest(out, truth, "a", str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"None of the 2 images .*such as b\.jpg.* 1 photos of other names"):
        write_manifest(out, truth, "a", photos)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"there is no \*_query\.txt"):
        write_manifest(out, str(empty), "oxford5k", photos)


def test_only_the_lists_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    folder = write_classic(tmp_path / "a")
    before = truth_fingerprint(folder)
    (tmp_path / "a/README.txt").write_text("changed")
    (tmp_path / "a/deeper").mkdir()
    (tmp_path / "a/deeper/x_1_good.txt").write_text("a")
    assert truth_fingerprint(folder) == before
    for kind in ("query", "good", "ok", "junk"):
        list_ = tmp_path / f"a/hall_1_{kind}.txt"
        kept = list_.read_text()
        list_.write_text(kept + " z")
        assert truth_fingerprint(folder) != before, kind
        list_.write_text(kept)
    assert truth_fingerprint(folder) == before


def test_where_names_and_lists_meet_matters_to_the_fingerprint(tmp_path: Path) -> None:
    first, second = write_classic(tmp_path / "a", good="xy", ok=""), write_classic(tmp_path / "b", good="x", ok="y")
    assert truth_fingerprint(first) != truth_fingerprint(second)
    pickled = write_pickle(tmp_path / "gnd_a.pkl", ["a"], ["q"])
    renamed = write_pickle(tmp_path / "gnd_b.pkl", ["a"], ["q"])
    assert truth_fingerprint(pickled) != truth_fingerprint(renamed)


def test_the_same_photo_twice_in_the_list_of_files_is_one() -> None:
    assert find_photos(["x/a.jpg", "x/a.jpg"], ["a"]) == {"a": "x/a.jpg"}
    assert find_photos(["x/a.jpg"], ["x/a", "a"]) == {"x/a": "x/a.jpg", "a": "x/a.jpg"}


def test_missing_queries_are_counted_too(tmp_path: Path) -> None:
    truth = write_pickle(tmp_path / "gnd_a.pkl", ["b", "a"], ["q", "gone", "gone"])
    told = write_manifest(Folder.of(tmp_path / "out"), truth, "a", write_photos(tmp_path / "jpg", "a.jpg", "q.jpg"))
    assert (told["gallery"], told["queries"], told["missing"]) == (2, 3, 3)  # b, and gone asks twice
