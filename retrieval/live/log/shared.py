"""The tables of one host, kept as a log says that several hosts write.

A change is tried on the tables, put into the log as the next object, and only then committed and acknowledged. If
another host was first with that number, nothing of it stays: its object is taken in, and the change tried again on what
is there then. Changes that wait while an object is put go into the next one together.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import itertools
import logging
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from retrieval.live.database import Database
from retrieval.live.log.coding import Group, decode, encode, size_of
from retrieval.live.log.objects import Log
from retrieval.live.log.operations import Operation, perform
from retrieval.live.log.turns import Turns
from retrieval.live.schema import TABLES, VERSION

logger = logging.getLogger(__name__)

FOLLOW_S = 1.0
"""Seconds between two looks at the log, of all processes of a host together."""

_PATIENCE_S = 20.0
_GROUP_BYTES = 16 << 20
_AHEAD = 32  # most objects that are taken in by one transaction
_AT_ONCE = 8  # of them read at once
_POSITION = "SELECT position FROM followed"


class _Behind(Exception):
    """The log goes on where this host thought it ended. met: the number, and what lies there."""

    def __init__(self, number: int, data: bytes) -> None:
        super().__init__()
        self.met = number, data


class _Waiting:
    """A change that somebody waits for."""

    def __init__(self, operation: Operation) -> None:
        self.operation, self.result = operation, None
        self.error: Exception | None = None
        self.done = False


class Shared:
    """Safe to use from several threads. Follows the log in a thread of its own until it is closed."""

    def __init__(self, database: Database, log: Log) -> None:
        """Takes in all there is. Raises: OSError if storage cannot be reached; ValueError if the log is damaged."""
        self._db, self._log = database, log
        self._turn = threading.Lock()
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._closed = threading.Event()
        self._turns = Turns()
        self._looked = Path(f"{database.path}.looked")
        with contextlib.suppress(BlockingIOError), self._scratch(wait=False):
            pass  # what a process that was killed left there is gone now
        self.follow()
        self._thread = threading.Thread(target=self._follow_on, name="follow-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Waits for a look that is under way."""
        self._closed.set()
        self._thread.join()

    def unseen_s(self) -> float:
        """Seconds since a process of this host last saw the end of the log."""
        return abs(time.time() - self._looked.stat().st_mtime)  # a clock that was put back must not end the looking

    def commit(self, operation: Operation) -> Any:
        """Returns what the operation does, once it is in the log.

        Raises: OSError if that cannot be known: it may be there, now or later. What `perform` raises.
        """
        mine = _Waiting(operation)
        self._waiting.append(mine)
        with self._turn:
            while not mine.done:
                self._write(self._group())
        if mine.error is not None:
            raise mine.error
        return mine.result

    def follow(self) -> None:
        """Take in what is in the log. Raises: OSError if storage cannot be reached; ValueError if it is damaged."""
        ahead = 1  # at the end of a log there is seldom more than one; who slept has many to read
        while num := self._step(ahead):
            ahead = _next(ahead, num)
        self._looked.touch(mode=0o600)

    def compact(self) -> None:
        """Make the tables the base of the log: of what was erased, no object holds anything then."""
        self.follow()
        with self._scratch() as copy:
            self._db.backup(copy)
            with closing(sqlite3.connect(copy)) as tables:
                number = _position(tables)
            if number > 0:
                self._log.rebase(number, copy)

    @contextlib.contextmanager
    def _scratch(self, wait: bool = True) -> Iterator[Path]:
        """A file for a base, of one process of this host at a time. What one that was killed left there goes: it may
        hold what was erased since.

        Raises: BlockingIOError if another process has it, and this one does not wait.
        """
        folder = Path(f"{self._db.path}.base")
        with Path(f"{folder}.lock").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            try:
                yield folder / "base.db"
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _group(self) -> list[_Waiting]:
        """Those that wait, the first in any case."""
        group = [self._waiting.popleft()]
        num_bytes = size_of([group[0].operation])
        while self._waiting and num_bytes < _GROUP_BYTES:
            group.append(self._waiting.popleft())
            num_bytes += size_of([group[-1].operation])
        return group

    def _write(self, group: list[_Waiting]) -> None:
        token, until, ahead = uuid.uuid4().hex, time.monotonic() + _PATIENCE_S, 1
        self._turns.wait()
        try:
            while True:
                began = time.monotonic()
                met = self._put(group, token)
                took = time.monotonic() - began
                if met is None:
                    break
                if time.monotonic() > until:
                    raise OSError(f"Other hosts write to {self._log.folder} all the time. Try again.")
                num = self._step(ahead, met)
                while 1 < ahead == num:  # it lost twice: to the end before it tries again
                    ahead = _next(ahead, num)
                    num = self._step(ahead)
                ahead = _next(ahead, num)
                self._turns.lost(time.monotonic() - began)
            self._turns.won(took)
        except Exception as error:  # noqa: BLE001
            for one in group:
                one.error = error
        for one in group:
            one.done = True

    def _put(self, group: list[_Waiting], token: str) -> tuple[int, bytes] | None:
        """Returns None if it was put; else the number and what lies there, and nothing was done."""
        try:
            with self._db.writing() as db:
                # Readers read on while the object is put: no page may have to be written before.
                db.execute("PRAGMA cache_spill = OFF")
                number = _position(db) + 1
                done = [one.operation for one in group if _try(db, one)]
                if not done:  # said of what this host knows: is that all?
                    data = self._log.read(number)
                    if data is not None:
                        raise _Behind(number, data)
                    return None
                if not self._log.put_new(number, encode(Group(token, done))):
                    # A client that hears nothing asks again, and is told then that its own object is there.
                    data = self._log.read(number) or b""
                    if not data or decode(data).token != token:
                        raise _Behind(number, data)
                db.execute("UPDATE followed SET position = ?", (number,))
        except _Behind as behind:
            return behind.met
        finally:
            self._db.connection().execute("PRAGMA cache_spill = ON")
        return None

    def _step(self, ahead: int, met: tuple[int, bytes] = (-1, b"")) -> int:
        """Take in the next objects, `ahead` at most. Returns how many, 0 behind the last; a base counts as one.

        Args: met: an object that was read already, with its number."""
        number = self._db.value(_POSITION) + 1
        data = b"" if not number else met[1] if met[0] == number and met[1] else self._log.read(number)
        if data is None:
            return 0
        if not data:
            self._load_base(number)
            return 1
        groups = [decode(one) for one in (data, *self._read_on(range(number + 1, number + ahead)))]
        with self._db.writing() as db:
            if _position(db) + 1 == number:  # else another process of this host was first
                self._turns.heard()
                for group in groups:
                    for operation in group.operations:
                        perform(db, operation)
                db.execute("UPDATE followed SET position = ?", (number + len(groups) - 1,))
        return len(groups)

    def _read_on(self, numbers: range) -> list[bytes]:
        """Those that are there, up to the first that is not."""
        if not numbers:
            return []
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="read-log") as pool:
            found = pool.map(self._log.read, numbers)
            return [data for data in itertools.takewhile(bool, found) if data]

    def _load_base(self, wanted: int) -> None:
        """Raises: ValueError if no base holds the object that is wanted, or another release wrote it."""
        found = self._log.newest_base()
        number, base = found or (0, None)
        if number < wanted:
            raise ValueError(f"{self._log.live} has lost the base of its log: object {wanted} is empty. Restore it.")
        with self._scratch() as file:
            if self._db.value(_POSITION) >= wanted:
                return  # another process of this host was first
            if base is not None:
                try:
                    self._log.fetch(base, file)
                except FileNotFoundError:
                    return  # a newer one took its place: look again
            with closing(sqlite3.connect(file)) as tables, self._db.writing() as db:
                if _position(db) >= wanted:
                    return
                if base is not None:
                    _copy_tables(tables, db, base)
                db.execute("UPDATE followed SET position = ?", (number,))

    def _follow_on(self) -> None:
        failing = False
        while not self._closed.wait(FOLLOW_S):
            if self.unseen_s() < 0.9 * FOLLOW_S:
                continue  # another process of this host looked
            try:
                self.follow()
                failing = False
            except (OSError, ValueError, sqlite3.Error) as error:
                if not failing:
                    logger.warning("what other hosts change is not seen just now: %s", error)
                failing = True


def _next(ahead: int, num: int) -> int:
    """How many objects to read at once, after `num` of `ahead` were there."""
    return min(2 * ahead, _AHEAD) if num == ahead else 1


def _try(db: sqlite3.Connection, one: _Waiting) -> bool:
    """Do it; one that fails leaves nothing, and the others alone. Returns whether it changed anything."""
    before = db.total_changes
    db.execute("SAVEPOINT one")
    try:
        one.result, one.error = perform(db, one.operation), None
    except (sqlite3.IntegrityError, ValueError) as error:
        one.error = error
        db.execute("ROLLBACK TO one")
    db.execute("RELEASE one")
    return one.error is None and db.total_changes > before


def _position(db: sqlite3.Connection) -> int:
    """Of the newest object that is in the tables; -1: not even a base is."""
    return db.execute(_POSITION).fetchone()[0]


def _copy_tables(tables: sqlite3.Connection, db: sqlite3.Connection, base: str) -> None:
    """Raises: ValueError if they are of another version."""
    (version,) = tables.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        raise ValueError(f"{base} is of version {version}, expected {VERSION}: another release wrote it.")
    for table in TABLES:
        rows = tables.execute(f"SELECT * FROM {table}")
        marks = ", ".join("?" * len(rows.description))
        db.execute(f"DELETE FROM {table}")
        db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
