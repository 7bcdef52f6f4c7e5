"""What is mapped of every row is what the tables say of it, however they are cut and ordered."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts import folder as folders
from retrieval.artifacts.collection import ADDED_FIELD, CATALOG, CATALOG_SCHEMA
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import IDS
from retrieval.artifacts.manifest import begin, seal
from retrieval.artifacts.node.cache import NodeCache
from retrieval.artifacts.node.rows import NEVER, Rows, open_rows, place_of

PEOPLE_SCHEMA = pa.schema([("image_id", pa.string()), ("person", pa.int32())])


def drawn(num: int, seed: int = 0) -> list[dict[str, Any]]:
    """A catalogue in the order of its parts, whose ids, as in a collection that was compacted, are not."""
    draw = random.Random(seed)
    names = [f"földer/{draw.randrange(4)}/{number:03d}.jpg" + "#0" * draw.randrange(2) for number in range(num)]
    draw.shuffle(names)
    return [
        {
            "image_id": name,
            "label": draw.choice([None, "ada", "bob", f"own-{place}"]),
            "split": draw.choice(["gallery", "query", "dropped"]),
            "attributes": draw.choice([None, [1, -1, 1]]),
            "part": place // 9,
            "row": 2 * (place % 9),  # some were deleted
            "face": draw.choice([None, 0, 3]),
            "added": draw.choice([None, 1_700_000_000_000_000 + place]),
        }
        for place, name in enumerate(names)
    ]


def write(root: Path, catalog: list[dict[str, Any]], *, with_added: bool = True) -> tuple[Folder, Folder, Folder]:
    """Index, collection and people of these, sealed; the index has all but what was dropped."""
    index, collection, people = (Folder.of(root / kind) for kind in ("index", "collection", "people"))
    schema = CATALOG_SCHEMA.append(ADDED_FIELD) if with_added else CATALOG_SCHEMA
    rows = sorted((row for row in catalog if row["split"] != "dropped"), key=lambda row: row["image_id"].encode())
    ids = [{**{name: row[name] for name in ("image_id", "label", "part")}, "row_in_part": row["row"]} for row in rows]
    grouped = [{"image_id": row["image_id"], "person": person(row)} for row in catalog]
    grouped.sort(key=lambda row: row["image_id"].encode())
    for at, name, table in (
        (collection, CATALOG, pa.Table.from_pylist(catalog, schema)),
        (index, IDS, pa.Table.from_pylist(ids)),
        (people, "people.parquet", pa.Table.from_pylist(grouped, PEOPLE_SCHEMA)),
    ):
        begin(at, kind=at.name, config={}, inputs={})
        done = at.write_table(name, table)
        seal(at, kind=at.name, config={}, inputs={}, counts={}, books=[], files={name: done.sha256})
    return index, collection, people


def person(row: dict[str, Any]) -> int | None:
    return None if row["part"] % 2 else row["row"]


def told(rows: Rows) -> list[dict[str, Any]]:
    """Row after row, as the tables say it."""

    def named(code: int, names: pa.Array) -> str | None:
        return None if code < 0 else names[code].as_py()

    return [
        {
            "image_id": rows.ids[row].as_py(),
            "label": named(rows.label[row], rows.labels),
            "split": named(rows.split[row], rows.splits),
            "attributes": None if rows.attributes is None else rows.attributes[row].tolist(),
            "part": int(rows.part[row]),
            "row": int(rows.row_in_part[row]),
            "face": int(rows.face[row]),
            "added": int(rows.added[row]),
            "person": int(rows.person[row]),
        }
        for row in range(len(rows.ids))
    ]


def expected(catalog: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same by a plain loop."""
    kept = sorted((row for row in catalog if row["split"] != "dropped"), key=lambda row: row["image_id"].encode())
    none = {"face": -1, "added": NEVER, "person": -1, "attributes": [0, 0, 0]}
    rows = [row | {"person": person(row)} for row in kept]
    return [{name: none.get(name) if value is None else value for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("group", [1, 7, 1000])
def test_rows_say_what_the_tables_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    catalog = drawn(60)
    made = write(tmp_path, catalog)
    monkeypatch.setattr(folders, "GROUP", group)
    rows = open_rows(*made)
    assert told(rows) == expected(catalog)
    assert len(set(rows.labels.to_pylist())) == len(rows.labels) == len({row["label"] for row in told(rows)} - {None})
    assert [place_of(rows.ids, name.as_py()) for name in rows.ids] == list(range(len(rows.ids)))


def test_a_catalogue_from_before_there_were_faces_or_additions_and_no_groups(tmp_path: Path) -> None:
    catalog = drawn(30, seed=1)
    index, collection, _ = write(tmp_path, catalog, with_added=False)
    collection.write_table(CATALOG, collection.read_table(CATALOG).drop_columns(["face", "photo"]))
    rows = open_rows(index, collection)
    bare = {"face": -1, "added": NEVER, "person": -1}
    assert told(rows) == [row | bare for row in expected(catalog)]


@pytest.mark.parametrize("odd", [[1, -1], []])
def test_attributes_that_are_not_of_everyone_the_same_are_none(tmp_path: Path, odd: list[int]) -> None:
    catalog = drawn(30, seed=2)
    next(row for row in reversed(catalog) if row["split"] == "gallery")["attributes"] = odd
    assert open_rows(*write(tmp_path / "odd", catalog)).attributes is None
    nobody = [row | {"attributes": None} for row in catalog]
    assert open_rows(*write(tmp_path / "none", nobody)).attributes is None


def test_processes_of_a_node_share_one_copy_of_what_does_not_change(tmp_path: Path) -> None:
    made = write(tmp_path, drawn(30))
    cache = NodeCache(root=tmp_path / "cache")
    first, again = open_rows(*made, cache), open_rows(*made, cache)
    assert first.kept is not None and again.kept is not None and first.kept.path == again.kept.path
    assert told(first) == told(again) == told(open_rows(*made))
    assert open_rows(made[0], made[1], None, cache).person.tolist() == [-1] * len(first.ids)
    assert isinstance(first.label, np.memmap) and not first.label.flags.writeable


def test_an_index_of_photos_that_are_not_there_is_refused(tmp_path: Path) -> None:
    index, collection, _ = write(tmp_path, drawn(30))
    _, fewer, _ = write(tmp_path / "fewer", drawn(9))
    with pytest.raises(ValueError, match="names photos that .*fewer/collection does not hold"):
        open_rows(index, fewer)
    assert len(open_rows(index, collection).ids)
