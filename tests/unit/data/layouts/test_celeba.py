"""CelebA's lists are read as published and as often damaged, and what is odd is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.data.layouts.celeba import ATTRIBUTES, box_of_landmarks, fits
from retrieval.data.listing import list_source
from tests.support.photos import touch

YES = " ".join(["1"] * 40)
NO = "  ".join(["-1"] * 40)


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


def test_landmark_box_holds_the_face_and_ignores_the_turn_of_the_head() -> None:
    frontal = (69, 110, 109, 110, 89, 130, 74, 150, 104, 150)
    box = box_of_landmarks(frontal)
    assert box == pytest.approx((41, 82, 137, 178))
    turned = (79, 110, 99, 110, 95, 130, 82, 150, 96, 150)
    assert box_of_landmarks(turned) == pytest.approx((41, 82, 137, 178))


def test_the_aligned_photos_are_taken_where_both_are_there(tmp_path: Path) -> None:
    touch(tmp_path, "img_align_celeba/1.jpg", "img_celeba/1.jpg", "img_celeba/2.jpg")
    (tmp_path / "identity_CelebA.txt").write_text("1.jpg 5\n2.jpg 6\n")
    source = list_source(str(tmp_path))
    assert {photo.image_id: photo.size for photo in source.photos} == {
        "img_align_celeba/1.jpg": len("img_align_celeba/1.jpg"),
        "img_align_celeba/2.jpg": -1,
    }
    assert source.report.ignored == {".txt": 1, "photos outside img_align_celeba": 2}


def test_of_two_lists_of_one_name_the_first_by_its_path_counts(tmp_path: Path) -> None:
    celeba(tmp_path)
    for folder, label in (("a", "1"), ("b", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "identity_CelebA.txt").write_text(f"000001.jpg {label}\n")
    assert list_source(str(tmp_path)).photos[0].label == "1"


def test_values_of_attributes_and_partitions_are_those_that_occur(tmp_path: Path) -> None:
    celeba(
        tmp_path,
        list_attr_celeba=f"3\n{HEADER}\n000001.jpg {YES.replace('1', '+1')}\n000002.jpg {YES.replace('1', '0')}\n",
        list_eval_partition="000001.jpg 2\n000002.jpg 7\n",
    )
    one, two, three = list_source(str(tmp_path)).photos
    assert (one.attributes, two.attributes, three.attributes) == ((1,) * 40, (-1,) * 40, None)
    assert (one.split, two.split, three.split) == ("test", "7", None)


def test_attributes_without_a_header_are_in_the_published_order(tmp_path: Path) -> None:
    values = ["1" if name == "Male" else "-1" for name in ATTRIBUTES]
    celeba(tmp_path, list_attr_celeba=f"000001.jpg {' '.join(values)}\n")
    attributes = list_source(str(tmp_path)).photos[0].attributes
    assert attributes is not None and [ATTRIBUTES[at] for at, value in enumerate(attributes) if value == 1] == ["Male"]
    assert attributes.index(1) == 20


def test_boxes_and_landmarks_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    celeba(
        tmp_path,
        identity_CelebA="000001.jpg 1\n",
        list_landmarks_align_celeba="000001.jpg 69 110 109 110 89 130 74 150 104 150\n000002.jpg 1 2 3 4 5 6 7 8 9 x\n",
    )
    one, two, _ = list_source(str(tmp_path)).photos
    assert one.box == pytest.approx((41, 82, 137, 178)) and two.box is None
    wild = tmp_path / "wild"
    touch(wild, "img_celeba/1.jpg", "img_celeba/2.jpg", "img_celeba/3.jpg")
    (wild / "identity_CelebA.txt").write_text("1.jpg 1\n")
    (wild / "list_bbox_celeba.txt").write_text("3\n1.jpg 5 6 10 20\n2.jpg 5 6 0 20\n3.jpg 5 6 10 -1\n")
    assert [photo.box for photo in list_source(str(wild)).photos] == [(5, 6, 15, 26), None, None]


def test_what_is_missing_is_said_but_for_boxes_of_the_wild(tmp_path: Path) -> None:
    celeba(tmp_path, identity_CelebA="000001.jpg 1\n")
    assert list_source(str(tmp_path)).report.notes == (
        "There is no list_attr_celeba.txt.",
        "There is no list_eval_partition.txt.",
        "There is no list_landmarks_align_celeba.txt.",
    )


def test_a_landmark_box_holds_the_face_of_a_turned_head_by_its_height_and_of_a_tall_one_by_its_eyes() -> None:
    assert box_of_landmarks((0, 0, 100, 0, 50, 20, 20, 10, 80, 10)) == pytest.approx((-70, -115, 170, 125))
    assert box_of_landmarks((40, 0, 60, 0, 50, 50, 45, 100, 55, 100)) == pytest.approx((-70, -70, 170, 170))


def test_either_of_two_lists_makes_a_celeba_set() -> None:
    assert fits({"a/identity_CelebA.txt": 1}) and fits({"list_attr_celeba.txt": 1})
    assert not fits({"list_eval_partition.txt": 1, "img_align_celeba/1.jpg": 1})


def test_a_photo_that_any_list_names_is_known_and_missing_where_it_is_not_there(tmp_path: Path) -> None:
    celeba(
        tmp_path,
        identity_CelebA="000004.jpg 1\n",
        list_eval_partition="000005.jpg 0\n",
        list_attr_celeba=f"{HEADER}\n000006.jpg {YES}\n",
    )
    sizes = {photo.image_id[-5]: photo.size for photo in list_source(str(tmp_path)).photos}
    assert sizes == {"1": 27, "2": 27, "3": 27, "4": -1, "5": -1, "6": -1}
