"""What each change does to the tables of a store.

An operation says everything that it depends on but the tables, the time too: done on two hosts whose tables are equal,
it leaves equal tables. So a host needs no more of another than the operations in their order.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from retrieval.live.rows import COLUMNS

Status = Literal["added", "same", "conflict"]


@dataclass(frozen=True, slots=True)
class Operation:
    """kind: one of `_KINDS`. told: its arguments, of what JSON can say and bytes."""

    kind: str
    told: dict[str, Any]


def perform(db: sqlite3.Connection, operation: Operation) -> Any:
    """Do it, inside a transaction. Returns: what the method of `Store` of that name does.

    Raises: ValueError for a kind that is not known; sqlite3.Error as SQLite does.
    """
    work = _KINDS.get(operation.kind)
    if work is None:
        raise ValueError(f"A change is {operation.kind[:40]!r}, expected one of {', '.join(_KINDS)}: a newer release.")
    return work(db, **operation.told)


def seq_of(db: sqlite3.Connection) -> int:
    """Number of the newest change."""
    return db.execute("SELECT seq FROM counter").fetchone()[0]


def _add(
    db: sqlite3.Connection,
    at: int,
    model: str,
    images: Sequence[Mapping[str, Any]],
    original: bytes | None,
    replace: bool,
    instead_of: Sequence[str],
) -> tuple[Status, int]:
    """Args: images: `rows.values_of` of each, with `vector`, its bytes."""
    photo, ids = images[0]["photo"], [one["image_id"] for one in images]
    there = db.execute("SELECT image_id, content_hash FROM images WHERE photo = ?", (photo,)).fetchall()
    if there and not replace:
        same = {found for _, found in there} == {images[0]["content_hash"]}
        return ("same" if same else "conflict"), seq_of(db)
    taken = [one for one in ids if one not in {name for name, _ in there} and _has(db, one)]
    if taken and not replace:
        return "conflict", seq_of(db)
    seq = _next(db)
    gone = {name for name, _ in there} | set(instead_of) | set(taken)
    _remove(db, gone)
    for name in gone - set(ids):
        db.execute("INSERT OR REPLACE INTO deletions VALUES (?, ?, ?, NULL)", (name, seq, at))
    marks = ", ".join("?" * (len(COLUMNS) + 2))
    for one in images:
        values = [one[name] for name in COLUMNS]
        db.execute(f"INSERT INTO images ({', '.join(COLUMNS)}, seq, added) VALUES ({marks})", (*values, seq, at))
        db.execute("INSERT INTO embeddings VALUES (?, ?, ?)", (one["image_id"], model, one["vector"]))
        db.execute("DELETE FROM deletions WHERE image_id = ?", (one["image_id"],))
    if original is not None:
        db.execute("INSERT OR REPLACE INTO originals VALUES (?, ?)", (photo, original))
    return "added", seq


def _delete(db: sqlite3.Connection, at: int, image_ids: Sequence[str], receipt: dict[str, Any]) -> dict[str, Any]:
    seq = _next(db)
    token = hashlib.sha256("\0".join([str(seq), str(at), *image_ids]).encode()).hexdigest()[:8]
    told = {**receipt, "receipt_id": f"r-{seq:06d}-{token}", "deleted": list(image_ids)}
    told |= {"at": datetime.fromtimestamp(at / 1e6, UTC).isoformat(), "live": seq}
    _remove(db, set(image_ids))
    rows = [(name, seq, at, told["receipt_id"]) for name in image_ids]
    db.executemany("INSERT OR REPLACE INTO deletions VALUES (?, ?, ?, ?)", rows)
    db.execute("INSERT INTO receipts VALUES (?, ?, ?, ?)", (told["receipt_id"], seq, at, json.dumps(told)))
    return told


def _edit_people(db: sqlite3.Connection, at: int, kind: str, body: dict[str, Any]) -> int:
    seq = _next(db)
    db.execute("INSERT INTO people_edits VALUES (?, ?, ?, ?)", (seq, at, kind, json.dumps(body)))
    return seq


def _keep_embeddings(db: sqlite3.Connection, model: str, vectors: Sequence[tuple[str, int, bytes]]) -> None:
    for image_id, seq, vector in vectors:
        now = db.execute("SELECT seq FROM images WHERE image_id = ?", (image_id,)).fetchone()
        if now is not None and now[0] == seq:
            db.execute("INSERT OR IGNORE INTO embeddings VALUES (?, ?, ?)", (image_id, model, vector))


def _note_fold(db: sqlite3.Connection, at: int, collection: str, seq: int) -> None:
    db.execute("INSERT OR REPLACE INTO folds VALUES (?, ?, ?)", (collection, seq, at))


def _forget_before(db: sqlite3.Connection, seq: int) -> int:
    names = {name for (name,) in db.execute("SELECT image_id FROM images WHERE seq <= ?", (seq,))}
    _remove(db, names)
    return len(names)


_KINDS: dict[str, Callable[..., Any]] = {
    "add": _add,
    "delete": _delete,
    "edit_people": _edit_people,
    "keep_embeddings": _keep_embeddings,
    "note_fold": _note_fold,
    "forget_before": _forget_before,
}


def _next(db: sqlite3.Connection) -> int:
    return db.execute("UPDATE counter SET seq = seq + 1 RETURNING seq").fetchone()[0]


def _has(db: sqlite3.Connection, image_id: str) -> bool:
    return db.execute("SELECT 1 FROM images WHERE image_id = ?", (image_id,)).fetchone() is not None


def _remove(db: sqlite3.Connection, image_ids: set[str]) -> None:
    db.executemany("DELETE FROM images WHERE image_id = ?", [(name,) for name in image_ids])
    db.execute("DELETE FROM originals WHERE photo NOT IN (SELECT photo FROM images)")
