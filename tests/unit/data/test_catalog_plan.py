"""The plan of a collection is made once and refuses another source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import plain
from retrieval.artifacts.manifest import seal
from retrieval.data.catalog import plan_collection, source_fingerprint
from retrieval.data.ingestion import PLAN_SCHEMA
from retrieval.data.layouts.celeba import ATTRIBUTES
from retrieval.images.settings import PrepareConfig
from tests.support.photos import touch

HAAR = PrepareConfig(detector="haar")
NAMES = ("ann/1.jpg", "ann/2 copy of 1.jpg", "b\u00f6 lee/\u5199\u771f 1.gif", "b\u00f6 lee/2.jpg", "cy/only.jpg")
FACE = dict.fromkeys(("x1", "y1", "x2", "y2"), "5") | dict.fromkeys(ATTRIBUTES, "1")


def planned(source: Path, out: Path, part_size: int | None = 5) -> dict[str, Any]:
    config = {"prepare": plain(HAAR), "part_size": part_size}
    return plan_collection(str(out), source=str(source), layout="auto", config=config, part_size=part_size)


def test_the_plan_is_read_back_and_a_changed_source_refused(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    touch(photos, *NAMES)
    plan = planned(photos, tmp_path / "out")
    assert planned(photos, tmp_path / "out") == plan
    (photos / "ann" / "new.jpg").write_bytes(b"x")
    (photos / "cy" / "only.jpg").unlink()
    (photos / "ann" / "1.jpg").write_bytes(b"other")
    with pytest.raises(
        ValueError, match=r"inputs.source.*1 new \(first: ann/new.jpg\); 1 gone .*only.jpg\); 1 changed"
    ):
        planned(photos, tmp_path / "out")


def test_fingerprint_names_content_not_place(tmp_path: Path) -> None:
    for place in ("here", "there"):
        touch(tmp_path / place, *NAMES)
    assert source_fingerprint(str(tmp_path / "here")) == source_fingerprint(str(tmp_path / "there"))
    assert source_fingerprint(str(tmp_path / "here"), "lfw") != source_fingerprint(str(tmp_path / "here"))


@pytest.mark.parametrize(("photos", "parts"), [(1, 1), (16, 1), (17, 2), (256, 16), (4096, 16), (4097, 17)])
def test_number_of_parts_follows_the_number_of_photos(tmp_path: Path, photos: int, parts: int) -> None:
    table = tmp_path / "photos.csv"
    (tmp_path / "0.jpg").write_bytes(b"x")
    table.write_text("path\n" + "".join(f"{number}.jpg\n" for number in range(photos)))
    assert planned(table, tmp_path / "out", None)["parts"] == parts


@pytest.mark.parametrize("where", ["below a file", "/proc/no-folder-can-be-made-here"])
def test_an_unwritable_place_is_refused_in_words(tmp_path: Path, where: str) -> None:
    """Both fail for root too, for whom permission bits count for nothing."""
    touch(tmp_path / "photos", *NAMES)
    (tmp_path / "file").write_bytes(b"")
    out = tmp_path / "file" / "out" if where == "below a file" else Path(where)
    with pytest.raises(ValueError, match=r"Cannot write to .*Name a folder that can be made"):
        planned(tmp_path / "photos", out)


def table(folder: Path, **changes: str) -> str:
    """A manifest of two photos, the second of which is as `changes` say. Returns its path."""
    touch(folder, "1.jpg", "2.jpg", "other.jpg")
    one = {"path": "1.jpg", "image_id": "one", "label": "ann", "split": "train", **FACE}
    two = one | {"path": "2.jpg", "image_id": "two"} | changes
    rows = [",".join(one), ",".join(one.values()), ",".join(two[name] for name in one)]
    (folder / "t.csv").write_text("\n".join(rows) + "\n")
    return str(folder / "t.csv")


@pytest.mark.parametrize(
    "changes",
    [
        {"image_id": "three"},
        {"path": "other.jpg"},  # another size too
        {"label": "bo"},
        {"label": ""},
        {"split": "query"},
        {"x1": "4"},
        {"x1": ""},
        {"Smiling": "-1"},
        {"Smiling": ""},
    ],
)
def test_a_fingerprint_is_of_all_that_is_known_of_each_photo(tmp_path: Path, changes: dict[str, str]) -> None:
    before = source_fingerprint(table(tmp_path))
    assert source_fingerprint(table(tmp_path)) == before
    assert source_fingerprint(table(tmp_path, **changes)) != before


def test_a_fingerprint_is_of_each_photo_s_size_and_place(tmp_path: Path) -> None:
    before = source_fingerprint(table(tmp_path))
    (tmp_path / "2.jpg").write_bytes(b"another length")
    changed = source_fingerprint(str(tmp_path / "t.csv"))
    assert changed != before
    (tmp_path / "5.jpg").write_bytes(b"another length")
    assert source_fingerprint(table(tmp_path, path="5.jpg")) != changed


def test_a_plan_says_which_photos_each_part_is_made_of(tmp_path: Path) -> None:
    touch(tmp_path / "photos", *(f"{name}.jpg" for name in "gfedcba"))
    plan = planned(tmp_path / "photos", tmp_path / "out", 3)
    out = Folder.of(tmp_path / "out")
    parts = [out.read_table(f"plan/part-{part:05}.parquet") for part in range(plan["parts"])]
    assert [part["image_id"].to_pylist() for part in parts] == [
        ["a.jpg", "b.jpg", "c.jpg"],
        ["d.jpg", "e.jpg", "f.jpg"],
        ["g.jpg"],
    ]
    assert all(part.schema.equals(PLAN_SCHEMA) for part in parts)
    assert parts[0].to_pylist()[0] == {"image_id": "a.jpg", "uri": "a.jpg", "size": 5} | dict.fromkeys(
        ("label", "split", "attributes", "box")
    )
    written = out.read_json("source.json")
    assert (written["parts"], written["part_size"], written["photos"], written["layout"]) == (3, 3, 7, "folder")
    assert written["fingerprint"] == plan["inputs"]["source"] == source_fingerprint(str(tmp_path / "photos"))
    assert plan["root"] == Folder.of(tmp_path / "photos").uri


@pytest.mark.parametrize(("photos", "size"), [(1, 16), (257, 17), (4096, 256), (5000, 256)])
def test_a_part_has_sixteen_to_256_photos_where_nobody_says(tmp_path: Path, photos: int, size: int) -> None:
    (tmp_path / "0.jpg").write_bytes(b"x")
    (tmp_path / "t.csv").write_text("path\n" + "".join(f"{number}.jpg\n" for number in range(photos)))
    planned(tmp_path / "t.csv", tmp_path / "out", None)
    assert Folder.of(tmp_path / "out").read_json("source.json")["part_size"] == size


def test_a_plan_that_was_cut_short_is_made_again_and_a_whole_one_is_kept(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "a.jpg", "b.jpg")
    planned(tmp_path / "photos", tmp_path / "out", 1)
    out = Folder.of(tmp_path / "out")
    out.remove("source.json")
    out.remove("plan/part-00001.parquet")
    assert planned(tmp_path / "photos", tmp_path / "out", 1)["parts"] == 2
    assert out.exists("plan/part-00001.parquet")
    out.remove("plan/part-00001.parquet")
    planned(tmp_path / "photos", tmp_path / "out", 1)
    assert not out.exists("plan/part-00001.parquet")  # source.json said that the plan is whole


def test_another_place_or_pace_goes_on_and_another_setting_does_not(tmp_path: Path) -> None:
    for place in ("here", "there"):
        touch(tmp_path / place, "a.jpg", "b.jpg")

    def plan(place: str, **config: Any) -> dict[str, Any]:
        settings = {"source": place, "out": "x", "cpus_per_part": 1.0, "size": 218} | config
        out, source = str(tmp_path / "out"), str(tmp_path / place)
        return plan_collection(out, source=source, layout="auto", config=settings, part_size=None)

    first = plan("here")
    assert plan("there", out="y", cpus_per_part=0.5) == first | {"root": Folder.of(tmp_path / "there").uri}
    with pytest.raises(ValueError, match="config.size"):
        plan("here", size=96)
    assert first["sealed"] is False
    settings = {"source": "here", "out": "x", "cpus_per_part": 1.0, "size": 218}
    inputs = first["inputs"]
    seal(Folder.of(tmp_path / "out"), kind="collection", config=settings, inputs=inputs, counts={})
    assert plan("there", out="z") == first | {"sealed": True, "root": Folder.of(tmp_path / "there").uri}


def test_what_changed_in_a_source_is_told(tmp_path: Path) -> None:
    planned(Path(table(tmp_path)), tmp_path / "out", None)
    with pytest.raises(ValueError, match=r"The source differs from the one planned there: 1 changed \(first: two\)\."):
        planned(Path(table(tmp_path, label="bo")), tmp_path / "out", None)
    with pytest.raises(ValueError, match=r"planned there: attributes, splits or boxes\."):
        planned(Path(table(tmp_path, split="query")), tmp_path / "out", None)
    with pytest.raises(ValueError, match=r"planned there: 1 new \(first: 3\); 1 gone \(first: two\)\."):
        planned(Path(table(tmp_path, image_id="3")), tmp_path / "out", None)
    with pytest.raises(ValueError) as caught:
        planned(Path(table(tmp_path)), tmp_path / "out", 7)
    assert "config.part_size" in str(caught.value) and "source differs" not in str(caught.value)
