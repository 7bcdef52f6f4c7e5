"""Folders are labels where they look like it or where one says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.data.layouts.tree import fits_labels
from retrieval.data.listing import list_source
from retrieval.data.source import walk
from tests.support.photos import touch


def test_lfw_layout_labels_by_folder(tmp_path: Path) -> None:
    touch(tmp_path, "Ann_Lee/Ann_Lee_0002.jpg", "Ann_Lee/Ann_Lee_0001.jpg", "Bo/1.PNG", "notes.txt", "Bo/.hidden.jpg")
    source = list_source(str(tmp_path))
    assert source.report.layout == "lfw"
    assert [(photo.image_id, photo.label) for photo in source.photos] == [
        ("Ann_Lee/Ann_Lee_0001.jpg", "Ann_Lee"),
        ("Ann_Lee/Ann_Lee_0002.jpg", "Ann_Lee"),
        ("Bo/1.PNG", "Bo"),
    ]
    assert source.report.ignored == {".txt": 1, "hidden": 1}
    assert source.photos[2].size == len("Bo/1.PNG")
    assert (source.report.labels, source.report.unlabelled) == (2, 0)


@pytest.mark.parametrize("names", [("a.jpg", "b/c.jpg", "d/e.jpg"), ("one/a.jpg",), ("x/y/a.jpg", "x/z/b.jpg")])
def test_other_trees_have_no_labels_unless_told(tmp_path: Path, names: tuple[str, ...]) -> None:
    touch(tmp_path, *names)
    source = list_source(str(tmp_path))
    assert source.report.layout == "folder"
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


def test_folders_that_hold_no_photo_are_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, "ann/1.jpg", "notes/2.txt", ".cache/3.jpg")
    assert not fits_labels(walk(Folder.of(tmp_path)))
    touch(tmp_path, "bo/1.jpg")
    assert fits_labels(walk(Folder.of(tmp_path)))
