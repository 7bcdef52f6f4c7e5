"""The tables keep wrong values out."""

from __future__ import annotations

import sqlite3

import pytest

from retrieval.live.schema import CHANGED_ROWS, SCHEMA


@pytest.fixture
def db() -> sqlite3.Connection:
    made = sqlite3.connect(":memory:")
    made.execute("PRAGMA foreign_keys = ON")
    for statement in SCHEMA:
        made.execute(statement)
    return made


def insert(db: sqlite3.Connection, image_id: str, jpeg: object = b"x") -> None:
    values = (image_id, 1, 0, None, "gallery", None, "h", image_id, None, None, None, None, 1, 1, "", jpeg)
    db.execute(f"INSERT INTO images VALUES ({', '.join('?' * len(values))})", values)


def test_types_are_kept_and_vectors_go_with_their_image(db: sqlite3.Connection) -> None:
    insert(db, "a")
    db.execute("INSERT INTO embeddings VALUES ('a', 'm', x'00')")
    with pytest.raises(sqlite3.IntegrityError):
        insert(db, "a")
    with pytest.raises(sqlite3.IntegrityError):
        insert(db, "b", jpeg="text")
    with pytest.raises(sqlite3.IntegrityError):
        db.execute("INSERT INTO embeddings VALUES ('nobody', 'm', x'00')")
    with pytest.raises(sqlite3.IntegrityError):
        db.execute("INSERT INTO counter VALUES (2, 0)")
    db.execute("DELETE FROM images")
    assert db.execute("SELECT COUNT(*) FROM embeddings").fetchone() == (0,)


def test_changed_rows_hold_no_pixels_and_one_models_vector(db: sqlite3.Connection) -> None:
    insert(db, "a", jpeg=b"pixels")
    db.execute("INSERT INTO embeddings VALUES ('a', 'm', x'11')")
    db.execute("INSERT INTO originals VALUES ('a', x'22')")
    (row,) = db.execute(CHANGED_ROWS, ("m", 0)).fetchall()
    assert b"pixels" not in row and row[-2:] == (b"\x11", 1)
    assert db.execute(CHANGED_ROWS, ("n", 0)).fetchall()[0][-2] is None
    assert db.execute(CHANGED_ROWS, ("m", 1)).fetchall() == []
