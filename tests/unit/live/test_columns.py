"""A filter of a million rows says what it says of one image; names and folders as they are stored."""

from __future__ import annotations

import weakref
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.artifacts.collection import ADDED_FIELD, CATALOG, CATALOG_SCHEMA
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import IDS
from retrieval.artifacts.node.rows import open_rows
from retrieval.data.layouts.celeba import ATTRIBUTES
from retrieval.live.columns import Columns, Masks
from retrieval.live.entries import Entry, photo_of
from retrieval.live.filters import Filter, allows
from tests.support.gallery import NAMES, sealed_gallery

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> Columns:
    """Every third photo was added to a service before, an hour each apart."""
    made = sealed_gallery(tmp_path_factory.mktemp("columns"))
    catalog = made.pair.collection.read_table(CATALOG)
    hours = [NOON.replace(hour=row % 24) if row % 3 == 0 else None for row in range(len(catalog))]
    catalog = catalog.append_column(ADDED_FIELD, pa.array(hours, ADDED_FIELD.type))
    made.pair.collection.write_table(CATALOG, catalog)
    return Columns(open_rows(made.pair.index, made.pair.collection, made.pair.people))


def entry(columns: Columns, row: int) -> Entry:
    image_id, face = columns.ids[row].as_py(), int(columns.face[row])
    person = int(columns.person[row])
    return Entry(
        image_id=image_id,
        label=columns.label.name(row),
        split=columns.split.name(row),
        person=None if person < 0 else person,
        attributes=columns.attributes_of(row),
        added=columns.added_at(row),
        where="sealed",
        photo=photo_of(image_id, None if face < 0 else face),
        face=None if face < 0 else face,
        width=48,
        height=48,
    )


def some(values: tuple) -> st.SearchStrategy:
    return st.none() | st.lists(st.sampled_from(values), min_size=1, max_size=3).map(tuple)


TIMES = st.none() | st.sampled_from([NOON.replace(hour=hour) for hour in range(0, 24, 3)])
FILTERS = st.builds(
    Filter,
    label=some((*NAMES, "nobody")),
    split=some(("gallery", "query", "dropped")),
    person=some((1, 2, 3, 99, -1)),
    folder=some(("a", "a/", "a/b", "c", "", "d", "c/group.jpg#0")),
    attributes=st.none()
    | st.lists(
        st.tuples(st.sampled_from((ATTRIBUTES[0], "Male", "hat")), st.sampled_from((-1, 0, 1))), min_size=1, max_size=2
    ).map(tuple),
    added_after=TIMES,
    added_before=TIMES,
    image_id=some(("a/ada-000.jpg", "c/group.jpg#1", "no.jpg")),
)


@settings(max_examples=100, deadline=None)
@given(wanted=FILTERS)
def test_a_filter_of_all_rows_says_what_it_says_of_each(columns: Columns, wanted: Filter) -> None:
    said = columns.allowed(wanted, columns.person)
    assert said.tolist() == [allows(wanted, entry(columns, row)) for row in range(len(columns))]


def test_each_part_of_a_filter_leaves_something_and_takes_something(columns: Columns) -> None:
    for wanted in (
        Filter(label=("ada",)),
        Filter(split=("gallery",)),
        Filter(person=(2,)),
        Filter(folder=("a",)),
        Filter(attributes=(("Male", 1),)),
        Filter(added_after=NOON),
        Filter(added_before=NOON),
        Filter(image_id=("a/ada-000.jpg",)),
    ):
        num = int(columns.allowed(wanted, columns.person).sum())
        assert 0 < num < len(columns), wanted


def test_a_folder_is_not_another_that_begins_like_it(columns: Columns) -> None:
    inside = columns.ids.filter(pa.array(columns.allowed(Filter(folder=("a/b",)), columns.person))).to_pylist()
    assert inside and all(name.startswith("a/b/") for name in inside)
    assert "a/bob-001.jpg" not in inside


def test_ids_are_found_and_only_those(columns: Columns) -> None:
    for row in range(len(columns)):
        assert columns.row_of(columns.ids[row].as_py()) == row
        assert columns.place_after(columns.ids[row].as_py()) == row + 1
    assert columns.row_of("a/twin.jpg") is None  # a copy, which is not indexed
    assert columns.row_of("") is None and columns.row_of("zzz") is None
    assert columns.place_after("") == 0 and columns.place_after("zzz") == len(columns)


def test_rows_hold_codes_not_names(columns: Columns) -> None:
    assert columns.label.codes.dtype == np.int32 and set(columns.label.names.to_pylist()) == set(NAMES)
    assert isinstance(columns.ids, pa.LargeStringArray)
    assert columns.attributes is not None and columns.attributes.dtype == np.int8
    assert columns.attribute_names == ATTRIBUTES


def test_a_catalog_without_any_of_it(tmp_path: Path) -> None:
    rows = [{"image_id": "1", "split": "gallery", "part": 0, "row": 0}]
    Folder.of(tmp_path).write_table(CATALOG, pa.Table.from_pylist(rows, schema=CATALOG_SCHEMA))
    ids = {"image_id": ["1"], "label": pa.nulls(1, pa.string()), "part": [0], "row_in_part": [0]}
    Folder.of(tmp_path).write_table(IDS, pa.table(ids))
    bare = Columns(open_rows(Folder.of(tmp_path), Folder.of(tmp_path)))
    assert (bare.attributes, bare.attributes_of(0), bare.added_at(0), bare.label.name(0)) == (None, None, None, None)
    for wanted, passes in {
        Filter(attributes=(("Male", 0),)): True,
        Filter(attributes=(("Male", 1),)): False,
        Filter(person=(1,)): False,
        Filter(added_before=NOON): False,
    }.items():
        assert bare.allowed(wanted, bare.person).tolist() == [passes]


def test_rows_that_pass_are_kept_and_of_people_only_while_everybody_is_who_they_are(
    columns: Columns, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks, asked = Masks(columns), []
    allowed = Columns.allowed

    def watched(self: Columns, wanted: Filter, person: np.ndarray) -> np.ndarray:
        asked.append(wanted)
        return allowed(self, wanted, person)

    monkeypatch.setattr(Columns, "allowed", watched)
    ada, first = Filter(label=("ada",)), Filter(person=(1,))
    for person in (columns.person, columns.person.copy()):
        for wanted in (ada, first, ada, first):
            mine = masks.of(wanted, person)
            assert np.array_equal(mine, allowed(columns, wanted, person)) and mine.shape == (len(columns),)
            mine[:] = True  # it is the caller's own
    assert asked == [ada, first, first]
    moved = np.full_like(columns.person, 1)
    gone = weakref.ref(moved)
    assert masks.of(first, moved).all()
    del moved
    assert not masks.of(first, np.zeros_like(columns.person)).any()
    assert gone() is None, "an array of every moment would be kept"
