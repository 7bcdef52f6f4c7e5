"""Sources in every layout, whole and damaged, are listed once each, and what is missing is said."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.data.demo.faces import draw_collection
from retrieval.data.layouts.celeba import ATTRIBUTES, box_of_landmarks
from retrieval.data.listing import list_source
from retrieval.data.settings import Layout
from retrieval.data.source import Source, open_uri

YES = " ".join(["1"] * 40)
NO = "  ".join(["-1"] * 40)


def touch(folder: Path, *names: str) -> Path:
    """Files that are photographs by their names: listing opens none of them."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def ids(source: Source) -> list[str]:
    return [photo.image_id for photo in source.photos]


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


def test_spaces_and_other_scripts_in_paths(tmp_path: Path) -> None:
    names = ["Jos\u00e9 Garc\u00eda/photo 1.jpg", "\u5c71\u7530/\u5199\u771f.jpg", "a#b?c%20/x+y.jpg"]
    source = list_source(str(touch(tmp_path / "my photos \u00fc", *names)))
    assert sorted(ids(source)) == sorted(names)
    for photo in source.photos:
        fs, path = open_uri(source.root, photo.uri)
        with fs.open_input_stream(path) as stream:
            assert stream.read() == photo.image_id.encode()


def test_names_never_depend_on_where_the_source_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("one", "two/deeper"):
        touch(tmp_path / place, "p/1.jpg", "q/2.jpg")
    monkeypatch.chdir(tmp_path)
    there = list_source("one/"), list_source(str(tmp_path / "two" / "deeper")), list_source((tmp_path / "one").as_uri())
    assert there[0].photos == there[1].photos == there[2].photos


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


def celeba(folder: Path, **lists: str) -> Path:
    """A CelebA set of three photos with the lists given."""
    touch(folder, *(f"img_align_celeba/{n:06}.jpg" for n in (1, 2, 3)))
    for name, text in lists.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8", newline="")
    return folder


HEADER = " ".join(ATTRIBUTES)


def test_celeba_with_all_its_lists(tmp_path: Path) -> None:
    celeba(
        tmp_path,
        identity_CelebA="000001.jpg 2880\n000002.jpg 2937\n000003.jpg 2880\n",
        list_attr_celeba=f"3\n{HEADER} \n000001.jpg {YES}\n000002.jpg {NO}\n000003.jpg  {YES}\n",
        list_eval_partition="000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n",
        list_landmarks_align_celeba="3\nlefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x "
        "leftmouth_y rightmouth_x rightmouth_y\n000001.jpg 69 109 106 113 77 142 73 152 108 154\n",
    )
    source = list_source(str(tmp_path))
    one, two, three = source.photos
    assert source.report.layout == "celeba"
    assert [photo.label for photo in source.photos] == ["2880", "2937", "2880"]
    assert [photo.split for photo in source.photos] == ["train", "val", "test"]
    assert one.attributes == (1,) * 40
    assert two.attributes == (-1,) * 40
    assert one.box is not None
    assert one.box[0] < 69 < 106 < one.box[2]
    assert one.box[1] < 109 < 154 < one.box[3]
    assert three.box is None
    assert one.image_id == "img_align_celeba/000001.jpg"
    assert source.report.notes == (
        "list_landmarks_align_celeba.txt says that it holds 3 rows; it holds 1 different ones.",
    )


def test_celeba_as_it_is_often_damaged(tmp_path: Path) -> None:
    celeba(
        tmp_path,
        identity_CelebA="\ufeff000001.jpg   7\r\n\r\n  000002.jpg\t8  \r\n000002.jpg 8\r\n000002.jpg 9\r\n"
        "000009.jpg 7\r\n?\r\n",
        list_attr_celeba=f"202599\n{HEADER}\n000001.jpg {YES}\n000003.jpg 1 -1 1\n000002.jpg 5{YES[1:]}\n",
    )
    touch(tmp_path, "stray.jpg")
    source = list_source(str(tmp_path))
    assert [(p.image_id[-10:], p.label, p.size) for p in source.photos] == [
        ("000001.jpg", "7", 27),
        ("000002.jpg", "8", 27),
        ("000003.jpg", None, 27),
        ("000009.jpg", "7", -1),
    ]
    assert [p.attributes is not None for p in source.photos] == [True, False, False, False]
    report = source.report
    assert (report.missing, report.repeated, report.unlabelled, report.without_attributes) == (1, 2, 1, 3)
    assert report.ignored == {".txt": 2, "photos outside img_align_celeba": 1}
    told = " ".join(report.notes)
    for part in (
        "says that it holds 202599 rows; it holds 2",
        "000002.jpg twice with different values",
        "identity_CelebA.txt has 1 lines that cannot be read; the first is '?'",
        "list_attr_celeba.txt has 1 lines that cannot be read; the first is '000003.jpg 1 -1 1'",
        "1 rows with other values than 1, 0 and -1",
        "There is no list_eval_partition.txt.",
    ):
        assert part in told


def test_celeba_in_its_download_folders_and_in_the_wild(tmp_path: Path) -> None:
    touch(tmp_path, "Img/img_celeba/000001.jpg", "Anno/x.md")
    (tmp_path / "Anno" / "identity_CelebA.txt").write_text("000001.jpg 5\n")
    (tmp_path / "Anno" / "list_bbox_celeba.txt").write_text(
        "1\nimage_id x_1 y_1 width height\n000001.jpg 95 71 226 313\n"
    )
    (photo,) = list_source(str(tmp_path)).photos
    assert (photo.image_id, photo.label, photo.box) == ("Img/img_celeba/000001.jpg", "5", (95, 71, 321, 384))


def test_attributes_follow_the_header_not_the_position(tmp_path: Path) -> None:
    names = list(reversed(ATTRIBUTES))
    values = ["1" if name == "Smiling" else "-1" for name in names]
    celeba(tmp_path, list_attr_celeba=f"1\n{' '.join(names)}\n000001.jpg {' '.join(values)}\n")
    attributes = list_source(str(tmp_path)).photos[0].attributes
    assert attributes is not None
    assert [name for name, value in zip(ATTRIBUTES, attributes) if value == 1] == ["Smiling"]
    celeba(tmp_path, list_attr_celeba=f"1\n{HEADER.replace('Smiling', 'Grinning')}\n000001.jpg {YES}\n")
    with pytest.raises(ValueError, match="lacks the attributes Smiling"):
        list_source(str(tmp_path))


def test_celeba_names_with_spaces_and_no_image_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a/my photo.jpg", "b/my photo.jpg")
    (tmp_path / "identity_CelebA.txt").write_text("my photo.jpg 3\n")
    source = list_source(str(tmp_path))
    assert [photo.image_id for photo in source.photos] == ["a/my photo.jpg", "b/my photo.jpg"]
    assert [photo.label for photo in source.photos] == ["3", "3"]


def test_lists_without_any_photo_are_refused(tmp_path: Path) -> None:
    (tmp_path / "identity_CelebA.txt").write_text("000001.jpg 5\n")
    with pytest.raises(ValueError, match="1 photos are named and none of them exists"):
        list_source(str(tmp_path))


def test_the_demo_set_is_read_whole(tmp_path: Path) -> None:
    draw_collection(tmp_path, num_identities=3, images_per_identity=2)
    source = list_source(str(tmp_path))
    report = source.report
    assert (report.layout, report.photos, report.labels, report.missing) == ("celeba", 6, 3, 0)
    assert (report.without_attributes, report.without_box, report.notes) == (0, 0, ())


def test_csv_manifest(tmp_path: Path) -> None:
    touch(tmp_path, "in/1.jpg", "in/2.jpg", "3 x.jpg")
    away = touch(tmp_path.parent / f"{tmp_path.name}-away", "far.jpg") / "far.jpg"
    attributes = "," + ",".join(ATTRIBUTES)
    table = tmp_path / "manifest.csv"
    table.write_text(
        f"path,label,split,x1,y1,x2,y2,comment{attributes}\n"
        f"in/1.jpg,007,train,1,2,30,40,x,{YES.replace(' ', ',')}\n"
        f"in/2.jpg,,,,,,,,{','.join(['-1'] * 39)},\n"
        f"in/1.jpg,007,train,1,2,30,40,again,{YES.replace(' ', ',')}\n"
        f'"3 x.jpg",b,,,,,,,{"," * 39}\n'
        f"gone.jpg,b,,,,,,,{',' * 39}\n"
        f"{away},b,,,,,,,{',' * 39}\n"
        f",c,,,,,,,{',' * 39}\n"
    )
    for where in (tmp_path, table):
        source = list_source(str(where))
        found = {photo.image_id: photo for photo in source.photos}
        assert set(found) == {"in/1.jpg", "in/2.jpg", "3 x.jpg", "gone.jpg", str(away).lstrip("/")}
        assert found["in/1.jpg"].label == "007"
        assert found["in/1.jpg"].box == (1, 2, 30, 40)
        assert found["in/1.jpg"].attributes == (1,) * 40
        assert (found["in/2.jpg"].label, found["in/2.jpg"].attributes, found["in/2.jpg"].box) == (None, None, None)
        assert found["gone.jpg"].size == -1
        assert found[str(away).lstrip("/")].size == len("far.jpg")
        assert source.report.repeated == 1
        assert source.report.ignored == {"rows without a path": 1}
        assert "comment" in source.report.notes[0]


def test_parquet_manifest_with_uris_and_names(tmp_path: Path) -> None:
    one = touch(tmp_path / "a b", "1.jpg") / "1.jpg"
    two = touch(tmp_path / "c", "1.jpg") / "1.jpg"
    table = pa.table({"path": [f"file://{one}", str(two)], "image_id": ["one.jpg", "two.jpg"], "label": [5, 6]})
    pq.write_table(table, tmp_path / "photos.parquet")
    source = list_source(str(tmp_path / "photos.parquet"))
    assert [(p.image_id, p.label, p.size) for p in source.photos] == [("one.jpg", "5", 5), ("two.jpg", "6", 5)]


def test_two_photos_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "t.csv").write_text("path,image_id\na.jpg,same\nb.jpg,same\n")
    with pytest.raises(ValueError, match=r"Two photos are called 'same': a.jpg and b.jpg"):
        list_source(str(tmp_path / "t.csv"))


def test_landmark_box_holds_the_face_and_ignores_the_turn_of_the_head() -> None:
    frontal = (69, 110, 109, 110, 89, 130, 74, 150, 104, 150)
    box = box_of_landmarks(frontal)
    assert box == pytest.approx((41, 82, 137, 178))
    turned = (79, 110, 99, 110, 95, 130, 82, 150, 96, 150)
    assert box_of_landmarks(turned) == pytest.approx((41, 82, 137, 178))


@pytest.mark.realdata
def test_real_lfw(real_faces: Path) -> None:
    report = list_source(str(real_faces)).report
    assert (report.layout, report.photos, report.labels, report.missing) == ("lfw", 4367, 1200, 0)
