"""Folders are labels where they look like it or where one says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.data.listing import list_source
from tests.support.photos import touch


def test_lfw_layout_labels_by_folder(tmp_path: Path) -> None:
    touch(tmp_path, "Ann_Lee/Ann_Lee_0002.jpg", "Ann_Lee/Ann_Lee_0001.jpg", "Bo/1.PNG", "notes.txt", "Bo/.hidden.jpg")
    source = list_source(str(tmp_path), "lfw")
    assert (source.report.layout, source.report.guessed) == ("lfw", False)
    assert [(photo.image_id, photo.label) for photo in source.photos] == [
        ("Ann_Lee/Ann_Lee_0001.jpg", "Ann_Lee"),
        ("Ann_Lee/Ann_Lee_0002.jpg", "Ann_Lee"),
        ("Bo/1.PNG", "Bo"),
    ]
    assert source.report.ignored == {".txt": 1, "hidden": 1}
    assert source.photos[2].size == len("Bo/1.PNG")
    assert (source.report.labels, source.report.unlabelled) == (2, 0)


def test_photos_that_are_named_after_their_folders_are_of_people(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"{name}/{name}_{n:04}.jpg" for name in ("Ann_Lee", "Bo de Wit", "Madonna", "Li-Ann_Oh") for n in (1, 2)),
    )
    touch(tmp_path, "notes.txt", ".cache/3.jpg")
    report = list_source(str(tmp_path)).report
    assert (report.layout, report.guessed, report.labels, report.folders) == ("lfw", True, 4, 4)
    touch(tmp_path, "Madonna/on stage.jpg")  # one of nine has another name
    assert list_source(str(tmp_path)).report.layout == "folder"
    touch(tmp_path, "Madonna/Madonna_0003.jpg")
    assert list_source(str(tmp_path)).report.layout == "lfw"
    touch(tmp_path, "top.jpg")
    assert list_source(str(tmp_path)).report.layout == "folder"


@pytest.mark.parametrize(
    "names",
    [
        ("2019/2019_0001.jpg", "2020/2020_0001.jpg"),
        ("2019/IMG_0001.jpg", "2020/IMG_0001.jpg"),
        ("2019/01/a.jpg", "2019/02/b.jpg"),
        ("DCIM/DCIM_0001.jpg", "IMG/IMG_0001.jpg"),
        ("DCIM/100CANON/IMG_1.jpg", "DCIM/101CANON/IMG_2.jpg"),
        ("100CANON/100CANON_0001.jpg", "101CANON/101CANON_0001.jpg"),
        ("Camera Roll/IMG_1.jpg", "Rome 2021/IMG_2.jpg"),
        ("Summer_2019/Summer_2019_1.jpg", "Summer_2020/Summer_2020_1.jpg"),
        ("ann/1.jpg", "bo/1.jpg"),
        ("Summer Trip/Summer Trip 2.jpg", "New York/New York 1.jpg"),
        ("Summer_Trip/Summer_Trip_02.jpg", "New_York/New_York_01.jpg"),
        ("Ann_Lee/Ann_Lee_0001.jpg", "Ann_Lee/Ann_Lee_0002.jpg"),  # one folder tells nobody from anybody
        ("a.jpg", "b/c.jpg", "d/e.jpg"),
        ("x/Ann_Lee/Ann_Lee_1.jpg", "x/Bo_Wit/Bo_Wit_1.jpg"),
    ],
)
def test_other_trees_have_no_labels_unless_told(tmp_path: Path, names: tuple[str, ...]) -> None:
    touch(tmp_path, *names)
    source = list_source(str(tmp_path))
    assert (source.report.layout, source.report.guessed) == ("folder", True)
    assert {photo.label for photo in source.photos} == {None}
    assert list_source(str(tmp_path), "lfw").report.labels >= 1


@pytest.mark.realdata
def test_real_lfw(real_faces: Path) -> None:
    report = list_source(str(real_faces)).report
    assert (report.layout, report.photos, report.labels, report.missing) == ("lfw", 4367, 1200, 0)


def test_labels_are_the_last_folder_and_photos_in_none_have_none(tmp_path: Path) -> None:
    touch(tmp_path, "top.jpg", "a/b/1.jpg", "c/2.jpg")
    labels = {photo.image_id: photo.label for photo in list_source(str(tmp_path), "lfw").photos}
    assert labels == {"top.jpg": None, "a/b/1.jpg": "b", "c/2.jpg": "c"}
