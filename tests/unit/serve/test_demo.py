"""Which photo the demo asks with."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from serve.demo import Photo, QueryOnceConfig, _file_of, query_photos, starts_right, what_it_means, without_itself
from tests.support.workspace import Workspace, make_workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("demo"), num_identities=10)


def first_query(made: Workspace) -> tuple[str, str]:
    rows = (made.folder / "collection/test").read_table("catalog.parquet").to_pylist()
    return min((row["image_id"], row["label"]) for row in rows if row["split"] == "query")


def test_the_first_query_photo_is_taken_with_who_it_shows(made: Workspace) -> None:
    image_id, label = first_query(made)
    drawn = Path(made.folder.path).parent / "drawn"
    photos = query_photos(QueryOnceConfig(workspace=str(made.folder), source=str(drawn)))
    assert photos[0] == Photo(drawn / image_id, image_id, label)
    assert len({photo.label for photo in photos}) == len(photos) > 1


def test_of_equal_names_the_photo_of_the_collection_is_taken(made: Workspace, tmp_path: Path) -> None:
    """A workspace keeps every set that it drew, under equal names: the first in order shows somebody else."""
    image_id, _ = first_query(made)
    copy = Path(shutil.copytree(made.folder.path, tmp_path / "w"))
    drawn = Path(made.folder.path).parent / "drawn"
    original = drawn / image_id
    for name in ("a", "b", "c"):
        there = copy / "photos" / name
        shutil.copytree(drawn, there)
        if name != "b":
            (there / image_id).write_bytes(b"another")
    photo = query_photos(QueryOnceConfig(workspace=str(copy)))[0].path
    assert photo == copy / "photos/b" / image_id
    assert hashlib.sha256(photo.read_bytes()).digest() == hashlib.sha256(original.read_bytes()).digest()


def test_of_one_of_several_faces_the_photo_it_is_on_is_sent(tmp_path: Path) -> None:
    (tmp_path / "group.jpg").write_bytes(b"a photo of two")
    row = {"image_id": "group.jpg#1", "photo": "group.jpg", "label": None}
    content_hash = hashlib.sha256(b"a photo of two").hexdigest()
    assert _file_of(row, content_hash, [tmp_path], "w") == Photo(tmp_path / "group.jpg", "group.jpg#1", None)


def test_photos_that_are_not_there_are_asked_for(made: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no .* in .*/photos. Name the folder"):
        query_photos(QueryOnceConfig(workspace=str(made.folder)))
    with pytest.raises(ValueError, match=f"There is no .* in {tmp_path}"):
        query_photos(QueryOnceConfig(workspace=str(made.folder), source=str(tmp_path)))


def answer(*found: tuple[str, str | None]) -> dict[str, Any]:
    """What the service says, with these (image_id, label) as its results."""
    results = [
        {"rank": rank, "image_id": name, "score": 1.0 - rank / 10, "label": label, "thumbnail": f"/gallery/{rank}"}
        for rank, (name, label) in enumerate(found, 1)
    ]
    query = {"width": 8, "height": 8, "box": [0, 0, 8, 8], "crop": None}
    seconds = {"total": 0.1, "prepare": 0.1, "embed": 0.1, "search": 0.1}
    return {"query": query, "results": results, "expansion": None, "model": "m", "index": "i", "seconds": seconds}


def test_a_photo_that_finds_itself_is_no_answer() -> None:
    photo = Photo(Path("a.jpg"), "a.jpg", "ann")
    found = without_itself(answer(("b.jpg", "bob"), ("a.jpg", "ann"), ("c.jpg", "ann"), ("d.jpg", "ann")), photo, k=2)
    assert [(one.rank, one.image_id) for one in found.results] == [(1, "b.jpg"), (2, "c.jpg")]
    assert not starts_right(photo, found)
    assert starts_right(photo, without_itself(answer(("a.jpg", "ann"), ("c.jpg", "ann")), photo, k=2))
    assert not starts_right(photo, without_itself(answer(("a.jpg", "ann")), photo, k=2))


def test_what_an_answer_means_is_said() -> None:
    ann, nobody = Photo(Path("a.jpg"), "a.jpg", "ann"), Photo(Path("a.jpg"), "a.jpg", None)
    found = without_itself(answer(("c.jpg", "ann"), ("b.jpg", "bob")), ann, k=2)
    assert what_it_means(ann, found, 3, 8) == (
        "Asked with 8 photos: 3 found the same first. The first of those is shown: 1 of its 2 nearest show the same, "
        "ann. The photo itself is left out."
    )
    assert "None does; the first is shown" in what_it_means(ann, found, 0, 8)
    assert "Nobody said who is on these photos" in what_it_means(nobody, found, 0, 8)
