"""Files are found once each, whatever they are called and however they are linked."""

from __future__ import annotations

import os
from pathlib import Path

from retrieval.data.listing import list_source
from retrieval.data.source import Source, open_uri
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
