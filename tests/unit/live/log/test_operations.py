"""The same operations leave the same tables, whoever does them."""

from __future__ import annotations

import sqlite3

import pytest

from retrieval.live.log.operations import Operation, perform, seq_of
from retrieval.live.rows import values_of
from retrieval.live.schema import SCHEMA, TABLES
from tests.support.gallery import new_image

MODEL = "m" * 64


def tables() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.execute("PRAGMA foreign_keys = ON")
    for statement in SCHEMA:
        db.execute(statement)
    return db


def everything(db: sqlite3.Connection) -> dict[str, list]:
    return {table: db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in TABLES}


def add(name: str, seed: int, **settings: object) -> Operation:
    told = {"at": 1000 + seed, "model": MODEL, "images": [values_of(new_image(name, seed))], "original": None}
    return Operation("add", told | {"replace": False, "instead_of": []} | settings)


DONE = (
    add("p", 1, original=b"photo"),
    add("q", 2),
    add("p", 3, replace=True, instead_of=["old"]),
    Operation("keep_embeddings", {"model": "n", "vectors": [["q", 2, b"1234"], ["q", 1, b"gone"], ["x", 1, b"none"]]}),
    Operation("delete", {"at": 7, "image_ids": ["q", "sealed"], "receipt": {"removed": ["crop"]}}),
    Operation("edit_people", {"at": 8, "kind": "name", "body": {"person": 1, "name": "Ada"}}),
    Operation("note_fold", {"at": 9, "collection": "c", "seq": 3}),
    add("r", 4),
    Operation("forget_before", {"seq": 3}),
)


def test_two_hosts_come_to_equal_tables() -> None:
    one, other = tables(), tables()
    for operation in DONE:
        assert perform(one, operation) == perform(other, operation)
    assert everything(one) == everything(other)
    assert seq_of(one) == 6
    assert [row[0] for row in everything(one)["images"]] == ["r"]
    assert everything(one)["embeddings"][0][1] == MODEL
    assert {row[0] for row in everything(one)["deletions"]} == {"old", "q", "sealed"}


def test_a_vector_of_an_image_that_was_replaced_is_passed_over() -> None:
    db = tables()
    for operation in DONE[:4]:
        perform(db, operation)
    assert [row[2] for row in everything(db)["embeddings"] if row[1] == "n"] == [b"1234"]


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'drop', expected one of add, delete"):
        perform(tables(), Operation("drop", {}))
