"""A table with a row a photo: its columns, its odd cells, photos that lie elsewhere or nowhere."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.data.layouts.celeba import ATTRIBUTES
from retrieval.data.layouts.table import image_id_of
from retrieval.data.listing import list_source
from tests.support.photos import touch

YES = " ".join(["1"] * 40)
NO = "  ".join(["-1"] * 40)


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


def test_a_table_with_tabs_and_cells_with_spaces(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "photos.tsv").write_text("path\tlabel\tsplit\n 1.jpg \t ann lee \tquery\n2.jpg\t \t\n")
    one, two = list_source(str(tmp_path / "photos.tsv")).photos
    assert (one.image_id, one.label, one.split) == ("1.jpg", "ann lee", "query")
    assert (two.label, two.split) == (None, None)


@pytest.mark.parametrize(
    ("cells", "box"),
    [
        ("1,2,3,4", (1, 2, 3, 4)),
        ("1.5,-2,3e1,4", (1.5, -2, 30, 4)),
        ("1,2,3,", None),
        ("1,2,3,x", None),
        (",,,", None),
    ],
)
def test_a_box_has_four_numbers_or_is_none(tmp_path: Path, cells: str, box: tuple[float, ...] | None) -> None:
    touch(tmp_path, "1.jpg")
    (tmp_path / "manifest.csv").write_text(f"x1,y1,x2,y2,path\n{cells},1.jpg\n")
    assert list_source(str(tmp_path)).photos[0].box == box


def test_attributes_are_yes_or_no_in_any_spelling_and_all_forty_or_none(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    columns: dict[str, list[object]] = {name: [True, False, True] for name in ATTRIBUTES}
    columns[ATTRIBUTES[3]] = [False, True, None]
    pq.write_table(pa.table({"path": ["1.jpg", "2.jpg", "3.jpg"], **columns}), tmp_path / "manifest.parquet")
    one, two, three = list_source(str(tmp_path)).photos
    assert one.attributes == (1, 1, 1, -1, *[1] * 36)
    assert two.attributes == (-1, -1, -1, 1, *[-1] * 36)
    assert three.attributes is None


def test_names_of_a_table_are_looked_for_in_their_order(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    pq.write_table(pa.table({"path": ["1.jpg"]}), tmp_path / "manifest.parquet")
    assert [photo.image_id for photo in list_source(str(tmp_path)).photos] == ["1.jpg"]
    (tmp_path / "manifest.csv").write_text("path\n2.jpg\n")
    assert [photo.image_id for photo in list_source(str(tmp_path)).photos] == ["2.jpg"]
    with pytest.raises(ValueError, match="no column 'path', only: file, label"):
        (tmp_path / "t.csv").write_text("file,label\n1.jpg,a\n")
        list_source(str(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("uri", "image_id"),
    [
        ("in/1.jpg", "in/1.jpg"),
        ("./in//1.jpg", "in/1.jpg"),
        ("../1.jpg", "1.jpg"),
        ("/data/set/in/1.jpg", "in/1.jpg"),
        ("/data/other/1.jpg", "data/other/1.jpg"),
        ("s3://bucket/a/1.jpg", "bucket/a/1.jpg"),
    ],
)
def test_a_name_says_nothing_of_where_the_source_lies(uri: str, image_id: str) -> None:
    assert image_id_of(Folder("/data/set"), uri) == image_id


def test_labels_are_text_whatever_they_look_like(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    (tmp_path / "manifest.csv").write_text("path,label,split\n1.jpg,007,01\n2.jpg,8,2\n")
    assert [(p.label, p.split) for p in list_source(str(tmp_path)).photos] == [("007", "01"), ("8", "2")]
    (tmp_path / "manifest.csv").write_text("path,label\n1.jpg,NA\n2.jpg,null\n3.jpg,nan\n4.jpg,\n")
    assert [photo.label for photo in list_source(str(tmp_path)).photos] == ["NA", "null", "nan", None]
