"""Whatever its layout, a source is listed by the same rules, and what cannot be listed is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.data.demo.faces import draw_collection
from retrieval.data.listing import list_source
from retrieval.data.settings import Layout
from tests.support.photos import touch


def test_names_never_depend_on_where_the_source_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("one", "two/deeper"):
        touch(tmp_path / place, "p/1.jpg", "q/2.jpg")
    monkeypatch.chdir(tmp_path)
    there = list_source("one/"), list_source(str(tmp_path / "two" / "deeper")), list_source((tmp_path / "one").as_uri())
    assert there[0].photos == there[1].photos == there[2].photos


@pytest.mark.parametrize("layout", ["auto", "lfw", "folder", "celeba"])
def test_an_empty_folder_is_refused_in_words(tmp_path: Path, layout: Layout) -> None:
    touch(tmp_path, "readme.txt")
    with pytest.raises(ValueError, match=r"No photos at .*1 \.txt.*Check the path"):
        list_source(str(tmp_path), layout)


def test_what_is_not_there_or_not_fitting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is nothing at"):
        list_source(str(tmp_path / "no"))
    touch(tmp_path, "a.jpg")
    with pytest.raises(ValueError, match="manifest"):
        list_source(str(tmp_path), "manifest")
    with pytest.raises(ValueError, match="is a file"):
        list_source(str(tmp_path / "a.jpg"), "lfw")
    with pytest.raises(ValueError, match="cannot be read as a table|no column 'path'"):
        list_source(str(tmp_path / "a.jpg"))


def test_the_demo_set_is_read_whole(tmp_path: Path) -> None:
    draw_collection(tmp_path, num_identities=3, images_per_identity=2)
    source = list_source(str(tmp_path))
    report = source.report
    assert (report.layout, report.photos, report.labels, report.missing) == ("celeba", 6, 3, 0)
    assert (report.without_attributes, report.without_box, report.notes) == (0, 0, ())
