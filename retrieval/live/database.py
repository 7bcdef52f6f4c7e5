"""A SQLite file that several processes and threads use at once: connections, transactions, what was erased is gone."""

from __future__ import annotations

import fcntl
import functools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

Made = TypeVar("Made")

_PATIENCE_S = 30.0
_LOOK_AGAIN_S = 0.0005
_SETTINGS = (
    # Emptied at each commit. Not the write-ahead log: it keeps copies of what was erased, and up to SQLite 3.51.2 two
    # processes may corrupt it. See docs/decisions/changes-in-sqlite.md.
    "journal_mode = TRUNCATE",
    "synchronous = FULL",  # a commit is on the disk, not on its way there
    "secure_delete = ON",  # what is deleted is overwritten with zeros
    "foreign_keys = ON",
)


class Database:
    """Each thread has a connection of its own."""

    def __init__(self, path: Path, schema: Sequence[str], version: int) -> None:
        """Args: schema: statements that make the tables, where there are none yet.

        Raises: ValueError if the file is of another version, or no database.
        """
        self.path = path
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        try:
            self._prepare(schema, version)
        except sqlite3.DatabaseError as error:
            self.close()
            raise ValueError(f"{path} cannot be opened ({error}). Restore it from a snapshot.") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Of all threads; none may be in the middle of something."""
        with self._lock:
            for connection in self._all:
                connection.close()
            self._all.clear()
        self._local = threading.local()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One writer at a time, in all processes; others wait for it. What is written is on disk behind the block.

        Writers queue at a lock of their own: at SQLite's they would poll, and readers with them, for seconds at times.
        """
        with Path(f"{self.path}.lock").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            db = self.connection()
            _patiently(lambda: db.execute("BEGIN IMMEDIATE"))
            try:
                yield db
                _patiently(lambda: db.execute("COMMIT"))
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Everything read inside is of one moment."""
        db = self.connection()
        db.execute("BEGIN")
        try:
            _patiently(lambda: db.execute("PRAGMA user_version").fetchone())  # from here on nobody writes
            yield db
        finally:
            db.execute("COMMIT")

    def value(self, query: str, *key: Any) -> Any:
        """The first value of the first row; None without a row."""
        found = _patiently(lambda: self.connection().execute(query, key).fetchone())
        return None if found is None else found[0]

    def watch(self) -> Callable[[], int]:
        """A function whose number differs from its last if anything was committed in between, by anybody. It takes
        microseconds, and is not to be called by two threads at once."""
        apart = self._connect()  # a connection is not told of what it commits itself
        return lambda: _patiently(lambda: apart.execute("PRAGMA data_version").fetchone()[0])

    def backup(self, to: Path) -> None:
        """A copy of the file as it is at this moment, while it is written to."""
        target = sqlite3.connect(to)
        try:
            self.connection().backup(target)
        finally:
            target.close()

    def connection(self) -> sqlite3.Connection:
        """This thread's own."""
        mine = getattr(self._local, "connection", None)
        if mine is None:
            mine = self._local.connection = self._connect()
        return mine

    def _connect(self) -> sqlite3.Connection:
        made = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        with self._lock:
            self._all.append(made)
        for setting in _SETTINGS:
            _patiently(functools.partial(_set, made, setting))
        return made

    def _prepare(self, schema: Sequence[str], version: int) -> None:
        found = self.value("PRAGMA user_version")
        if found == 0:
            with self.writing() as db:
                found = db.execute("PRAGMA user_version").fetchone()[0]  # another process may have been first
                for statement in schema if found == 0 else ():
                    db.execute(statement)
                if found == 0:
                    db.execute(f"PRAGMA user_version = {version}")
                    found = version
        if found != version:
            raise ValueError(f"{self.path} is of version {found}, expected {version}: another release wrote it.")


def _set(connection: sqlite3.Connection, setting: str) -> None:
    connection.execute(f"PRAGMA {setting}").fetchall()


def _patiently(work: Callable[[], Made]) -> Made:
    """Again while somebody is committing: that takes milliseconds, and SQLite's own waiting looks too seldom.

    Raises: sqlite3.OperationalError if it takes longer than anything should.
    """
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return work()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(_LOOK_AGAIN_S)
