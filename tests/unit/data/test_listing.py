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


def test_of_several_layouts_that_fit_a_table_comes_first_then_celeba_then_labels(tmp_path: Path) -> None:
    touch(tmp_path, "Al_Bo/Al_Bo_0001.jpg", "Cy_Di/Cy_Di_0002.jpg")
    assert list_source(str(tmp_path)).report.layout == "lfw"
    assert [photo.label for photo in list_source(str(tmp_path)).photos] == ["Al_Bo", "Cy_Di"]
    (tmp_path / "identity_CelebA.txt").write_text("1.jpg 5\n")
    assert list_source(str(tmp_path)).report.layout == "celeba"
    (tmp_path / "manifest.csv").write_text("path\nAl_Bo/Al_Bo_0001.jpg\n")
    assert list_source(str(tmp_path)).report.layout == "manifest"
    for layout in ("celeba", "lfw", "folder"):
        assert list_source(str(tmp_path), layout).report.layout == layout


def test_the_report_counts_what_is_known_of_each_photo(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    rows = ["path,label,x1,y1,x2,y2", "4.jpg,b,1,2,3,4", "1.jpg,a,,,,", "2.jpg,b,,,,", "3.jpg,,,,,", "gone.jpg,,,,,"]
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    source = list_source(tmp_path.as_posix())
    report = source.report
    assert [photo.image_id for photo in source.photos] == ["1.jpg", "2.jpg", "3.jpg", "4.jpg", "gone.jpg"]
    assert (report.photos, report.missing, report.labels, report.unlabelled) == (5, 1, 2, 2)
    assert (report.without_attributes, report.without_box, report.repeated) == (5, 4, 0)


def test_photos_that_are_all_missing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path\n1.jpg\n2.jpg\n")
    with pytest.raises(ValueError, match="2 photos are named and none of them exists"):
        list_source(str(tmp_path))
    touch(tmp_path, "2.jpg")
    assert list_source(str(tmp_path)).report.missing == 1


def test_a_report_holds_the_first_fifty_notes(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    rows = "".join(f"1.jpg,{number}\n" for number in range(70))
    (tmp_path / "manifest.csv").write_text(f"path,label\n{rows}")
    report = list_source(str(tmp_path)).report
    assert (len(report.notes), report.repeated) == (50, 69)
