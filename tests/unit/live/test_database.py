"""Transactions of several threads: whole or not at all, and nobody sees half of one."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from retrieval.live.database import Database

SCHEMA = (
    "CREATE TABLE pair (name TEXT PRIMARY KEY, value INTEGER) STRICT",
    "INSERT INTO pair VALUES ('a', 0), ('b', 0)",
)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "it.db", SCHEMA, 1)


def test_settings_that_durability_and_erasure_rest_on(database: Database) -> None:
    wanted = {"journal_mode": "truncate", "synchronous": 2, "secure_delete": 1, "foreign_keys": 1}
    assert {name: database.value(f"PRAGMA {name}") for name in wanted} == wanted


def test_what_fails_leaves_nothing_and_the_next_one_works(database: Database) -> None:
    with pytest.raises(KeyError), database.writing() as db:
        db.execute("UPDATE pair SET value = 5")
        raise KeyError
    assert database.value("SELECT value FROM pair WHERE name = ?", "a") == 0
    with database.writing() as db:
        db.execute("UPDATE pair SET value = 6")
    assert database.value("SELECT value FROM pair WHERE name = ?", "b") == 6
    assert database.value("SELECT value FROM pair WHERE name = ?", "nobody") is None


def test_readers_see_whole_transactions_while_threads_write(database: Database) -> None:
    def write() -> None:
        for _ in range(15):
            with database.writing() as db:
                db.execute("UPDATE pair SET value = value + 1 WHERE name = 'a'")
                db.execute("UPDATE pair SET value = value + 1 WHERE name = 'b'")

    threads = [threading.Thread(target=write) for _ in range(3)]
    for one in threads:
        one.start()
    seen = []
    while any(one.is_alive() for one in threads):
        with database.reading() as db:
            seen.append([value for (value,) in db.execute("SELECT value FROM pair ORDER BY name")])
    assert all(a == b for a, b in seen) and [a for a, _ in seen] == sorted(a for a, _ in seen)
    assert database.value("SELECT value FROM pair WHERE name = 'a'") == 45


def test_two_that_make_the_tables_at_once_make_them_once(tmp_path: Path) -> None:
    made: list[Database] = []
    threads = [threading.Thread(target=lambda: made.append(Database(tmp_path / "x.db", SCHEMA, 1))) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(made) == 4 and made[0].value("SELECT COUNT(*) FROM pair") == 2


def test_a_closed_one_is_closed_for_every_thread(database: Database) -> None:
    other = threading.Thread(target=lambda: database.value("PRAGMA user_version"))
    other.start()
    other.join()
    mine = database.connection()
    database.close()
    with pytest.raises(sqlite3.ProgrammingError):
        mine.execute("SELECT 1")
