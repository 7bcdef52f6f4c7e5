"""Files are found once each, whatever they are called and however they are linked."""

from __future__ import annotations

import os
from pathlib import Path

from retrieval.artifacts.folder import Folder
from retrieval.data.listed import sort_files
from retrieval.data.listing import Source, list_source
from retrieval.data.settings import Layout
from retrieval.data.source import Listing, open_uri, photo_files, told, walk
from tests.support.photos import touch


def ids(source: Source) -> list[str]:
    return [photo.image_id for photo in source.photos]


def test_spaces_and_other_scripts_in_paths(tmp_path: Path) -> None:
    names = ["Jos\u00e9 Garc\u00eda/photo 1.jpg", "\u5c71\u7530/\u5199\u771f.jpg", "a#b?c%20/x+y.jpg"]
    source = list_source(str(touch(tmp_path / "my photos \u00fc", *names)))
    assert sorted(ids(source)) == sorted(names)
    for photo in source.photos:
        fs, path = open_uri(source.root, photo.uri)
        with fs.open_input_stream(path) as stream:
            assert stream.read() == photo.image_id.encode()


def test_links_are_followed_once_and_dead_ones_reported(tmp_path: Path) -> None:
    touch(tmp_path / "set", "p/1.jpg")
    touch(tmp_path / "elsewhere", "2.jpg")
    (tmp_path / "set" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "q").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "p" / "dead.jpg").symlink_to("nowhere.jpg")
    source = list_source(str(tmp_path / "set"))
    assert {photo.image_id: photo.size for photo in source.photos} == {"p/1.jpg": 7, "p/dead.jpg": -1, "q/2.jpg": 5}
    assert source.report.missing == 1


def test_a_name_that_is_not_utf8_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "good.jpg")
    with open(os.fsencode(str(tmp_path)) + b"/bad\xff.jpg", "wb") as stream:
        stream.write(b"x")
    source = list_source(str(tmp_path))
    assert ids(source) == ["good.jpg"]
    assert source.report.ignored == {"name is not UTF-8": 1}


def test_files_that_are_no_photographs_by_their_names_are_counted_by_kind() -> None:
    found = Listing()
    files = ["a.jpg", "b.JPEG", "c.heic", "d.txt", "e.TXT", "no-suffix", ".hidden/f.jpg", "g/.h.jpg", "__MACOSX/i.jpg"]
    files += ["x/__MACOSX/j.jpg", "k.\x07", "l.jpg.txt", "m.d/n.png"]
    assert dict(photo_files(((name, at) for at, name in enumerate(files)), found)) == {
        "a.jpg": 0,
        "b.JPEG": 1,
        "c.heic": 2,
        "x/__MACOSX/j.jpg": 9,
        "m.d/n.png": 12,
    }
    assert found.ignored == {".txt": 3, "no suffix": 2, "hidden": 3}


def test_files_are_found_at_any_depth_in_the_order_of_their_paths(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.jpg", "b.jpg", "a/z/deep/1.jpg", "c.txt")
    (tmp_path / "empty").mkdir()
    found = sort_files(walk(Folder.of(tmp_path)))
    assert list(found) == sorted(found) == ["a/z/deep/1.jpg", "b.jpg", "b/2.jpg", "c.txt"]
    assert found["a/z/deep/1.jpg"] == len("a/z/deep/1.jpg")


def test_a_photo_s_place_is_below_the_source_or_wherever_it_says(tmp_path: Path) -> None:
    root = Folder.of(touch(tmp_path / "set", "in/1.jpg"))
    away = touch(tmp_path / "else where", "2.jpg") / "2.jpg"
    for uri, path in (("in/1.jpg", f"{root.path}/in/1.jpg"), (str(away), str(away)), (f"file://{away}", str(away))):
        fs, there = open_uri(root, uri)
        assert there == path
        assert fs.get_file_info(there).size > 0


def lines(folder: Path, layout: Layout = "auto") -> list[str]:
    return told(list_source(str(folder), layout).report)


def test_what_a_source_is_taken_for_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "2019/1.jpg", "2020/2.heic", "2020/3.CR2", "2020/4.nef", "2020/5.NEF", "2020/6.mov", ".trash/7.jpg")
    assert lines(tmp_path) == [
        "2 photos in 2 folders (layout folder, told by what is there), no labels",
        "folders are not taken for people or places; if each is one, say --layout lfw",
        "camera RAW, which cannot be read: convert them to JPEG: 1 .cr2, 2 .nef",
        "not taken for photos: 1 .mov, 1 hidden",
    ]
    assert lines(tmp_path, "folder")[0] == "2 photos in 2 folders (layout folder), no labels"
    assert (
        lines(tmp_path, "lfw")[0] == "2 photos in 2 folders (layout lfw), 2 labels" and len(lines(tmp_path, "lfw")) == 3
    )
    touch(tmp_path, "8.jpg")
    assert lines(tmp_path, "lfw")[0] == "3 photos in 3 folders (layout lfw), 2 labels, 1 photo without one"


def test_one_photo_is_told_of_as_one(tmp_path: Path) -> None:
    touch(tmp_path, "8.jpg")
    assert lines(tmp_path, "folder")[0] == "1 photo in 1 folder (layout folder), no labels"


def test_a_guess_that_folders_are_people_is_told_with_the_way_out(tmp_path: Path) -> None:
    touch(tmp_path, "Ann_Lee/Ann_Lee_0001.jpg", "Bo_Wit/Bo_Wit_0001.jpg")
    assert lines(tmp_path)[1:] == [
        "photos are named after their folders, so each folder is taken for one person or place; else say --layout "
        "folder"
    ]
    (tmp_path / "manifest.csv").write_text("path\nAnn_Lee/Ann_Lee_0001.jpg\ngone.jpg\n")
    assert lines(tmp_path)[1:] == ["1 photos are named and not there"]
