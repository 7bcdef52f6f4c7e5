"""What changed since the gallery was sealed: photos added, images deleted, people put right. One SQLite file.

A change is on disk when the call that makes it returns, and every process of the host that has the store open sees it
from then on: SQLite's transactions and locks do that. Why it does, and what that means for several hosts and object
stores: docs/decisions/changes-in-sqlite.md.

Changes are numbered by one sequence. A sealed collection that changes were folded into says up to which number it
holds them (`note_fold`); a view of it looks at those after.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from retrieval.artifacts.folder import Folder
from retrieval.live.database import Database
from retrieval.live.rows import LiveRow, NewImage, row_of, values_of
from retrieval.live.schema import CHANGED_ROWS, SCHEMA, VERSION

logger = logging.getLogger(__name__)

FOLDER, FILE = "live", "gallery.db"

Status = Literal["added", "same", "conflict"]


class ReadOnly(ValueError):
    """A gallery that cannot be changed, because its workspace is not on a disk of this host."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Changed:
    """What is different since a number that was seen. seq: of the newest change."""

    seq: int
    rows: list[LiveRow]
    deleted: list[tuple[str, int]]
    """image_id and number of the change, each."""
    edits: list[dict[str, Any]]
    """Of people, oldest first: kind, at, seq and what `edit_people` was given."""


class Store:
    """Opened once a process; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """Raises: ValueError if the file is of another version, or none of ours."""
        self._db = Database(path, SCHEMA, VERSION)
        self.watch, self.backup, self.close = self._db.watch, self._db.backup, self._db.close

    @classmethod
    def open(cls, workspace: Folder | str) -> Store:
        """That of a workspace; made if there is none yet.

        Raises: ReadOnly if the workspace is not a local folder; ValueError as the constructor.
        """
        root = Folder.of(workspace)
        if not root.is_local:
            raise ReadOnly(
                f"The gallery of {root} cannot be changed: its workspace is in an object store, and changes need "
                f"a disk of the host that serves it. Copy the workspace to a disk, or run the pipeline again."
            )
        folder = Path(root.path) / FOLDER
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(folder / FILE)

    @classmethod
    def open_if_possible(cls, workspace: Folder | str) -> Store | None:
        """None where the gallery cannot be changed: in an object store, on a disk that is read only."""
        try:
            return cls.open(workspace)
        except (ReadOnly, PermissionError) as error:
            logger.warning("the gallery stays as it was sealed: %s", error)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            logger.warning("the gallery stays as it was sealed: %s", error)
        return None

    def seq(self) -> int:
        """The number of the newest change."""
        return self._db.value("SELECT seq FROM counter")

    def add(
        self,
        images: Sequence[NewImage],
        model: str,
        *,
        original: bytes | None = None,
        replace: bool = False,
        instead_of: Sequence[str] = (),
    ) -> tuple[Status, int]:
        """Add the images of one photo; all of them, or none. On disk when it returns.

        The same photo again changes nothing. Another photo of that name is a conflict, unless it shall replace it.

        Args:
            images: not empty, of one photo; with vectors of `model`, a fingerprint.
            original: the photo as it was sent, to be kept.
            instead_of: images of a sealed photo that it replaces; those that are not made again are deleted.

        Returns: what became of it, and the number of the change; of the newest one where nothing was changed.
        """
        photo, at = images[0].photo, _now()
        ids = [one.image_id for one in images]
        with self._db.writing() as db:
            there = db.execute("SELECT image_id, content_hash FROM images WHERE photo = ?", (photo,)).fetchall()
            if there and not replace:
                same = {found for _, found in there} == {images[0].content_hash}
                return ("same" if same else "conflict"), self._seq(db)
            taken = [one for one in ids if one not in {name for name, _ in there} and self._has(db, one)]
            if taken and not replace:
                return "conflict", self._seq(db)
            seq = self._next(db)
            gone = {name for name, _ in there} | set(instead_of) | set(taken)
            self._remove(db, gone)
            for name in gone - set(ids):
                db.execute("INSERT OR REPLACE INTO deletions VALUES (?, ?, ?, NULL)", (name, seq, at))
            for one in images:
                names, values = values_of(one, seq, at)
                marks = ", ".join("?" * len(values))
                db.execute(f"INSERT INTO images ({', '.join(names)}) VALUES ({marks})", values)
                db.execute("INSERT INTO embeddings VALUES (?, ?, ?)", (one.image_id, model, _blob(one.vector)))
                db.execute("DELETE FROM deletions WHERE image_id = ?", (one.image_id,))
            if original is not None:
                db.execute("INSERT OR REPLACE INTO originals VALUES (?, ?)", (photo, original))
            return "added", seq

    def delete(self, image_ids: Sequence[str], receipt: dict[str, Any]) -> dict[str, Any]:
        """Delete these images, live ones and sealed ones, and write a receipt. On disk when it returns.

        Args: receipt: what it shall say besides.

        Returns: the receipt, with receipt_id, deleted, at and live.
        """
        at = _now()
        with self._db.writing() as db:
            seq = self._next(db)
            token = hashlib.sha256("\0".join([str(seq), str(at), *image_ids]).encode()).hexdigest()[:8]
            told = {**receipt, "receipt_id": f"r-{seq:06d}-{token}", "deleted": list(image_ids)}
            told |= {"at": datetime.fromtimestamp(at / 1e6, UTC).isoformat(), "live": seq}
            self._remove(db, set(image_ids))
            rows = [(name, seq, at, told["receipt_id"]) for name in image_ids]
            db.executemany("INSERT OR REPLACE INTO deletions VALUES (?, ?, ?, ?)", rows)
            db.execute("INSERT INTO receipts VALUES (?, ?, ?, ?)", (told["receipt_id"], seq, at, json.dumps(told)))
        return told

    def edit_people(self, kind: str, body: dict[str, Any]) -> int:
        """Write down that people were put right: merge, name, split. Returns the number of the change."""
        with self._db.writing() as db:
            seq = self._next(db)
            db.execute("INSERT INTO people_edits VALUES (?, ?, ?, ?)", (seq, _now(), kind, json.dumps(body)))
        return seq

    def receipt(self, receipt_id: str) -> dict[str, Any] | None:
        body = self._db.value("SELECT body FROM receipts WHERE receipt_id = ?", receipt_id)
        return None if body is None else json.loads(body)

    def changed(self, since: int, model: str) -> Changed:
        """What is different since the change of this number, with embeddings of this model where there are any."""
        with self._db.reading() as db:
            rows = db.execute(CHANGED_ROWS, (model, since)).fetchall()
            deleted = db.execute("SELECT image_id, seq FROM deletions WHERE seq > ?", (since,)).fetchall()
            return Changed(
                seq=self._seq(db),
                rows=[row_of(row) for row in rows],
                deleted=[tuple(one) for one in deleted],
                edits=_edits(db, since),
            )

    def edits(self) -> list[dict[str, Any]]:
        """All that was said of people, oldest first, as in `Changed`: no sealed collection holds any of it."""
        with self._db.reading() as db:
            return _edits(db, 0)

    def jpeg(self, image_id: str) -> bytes | None:
        """The stored crop of a live image."""
        return self._db.value("SELECT jpeg FROM images WHERE image_id = ?", image_id)

    def original(self, photo: str) -> bytes | None:
        """The photo as it was sent, where it was kept."""
        return self._db.value("SELECT bytes FROM originals WHERE photo = ?", photo)

    def keeps_original(self, photo: str) -> bool:
        return bool(self._db.value("SELECT EXISTS (SELECT 1 FROM originals WHERE photo = ?)", photo))

    def keep_embeddings(self, model: str, vectors: dict[tuple[str, int], np.ndarray]) -> None:
        """Embeddings that were made later, by another model: (image_id, number of its change) -> (D,) float32. What was
        deleted or replaced meanwhile is passed over."""
        with self._db.writing() as db:
            for (image_id, seq), vector in vectors.items():
                now = db.execute("SELECT seq FROM images WHERE image_id = ?", (image_id,)).fetchone()
                if now is not None and now[0] == seq:
                    db.execute("INSERT OR IGNORE INTO embeddings VALUES (?, ?, ?)", (image_id, model, _blob(vector)))

    def note_fold(self, collection: str, seq: int) -> None:
        """A sealed collection, by its fingerprint, holds every change up to this one. Said before it is published."""
        with self._db.writing() as db:
            db.execute("INSERT OR REPLACE INTO folds VALUES (?, ?, ?)", (collection, seq, _now()))

    def folded(self, collection: str) -> int:
        """Up to which change a sealed collection holds them; 0: it was made of photos alone."""
        found = self._db.value("SELECT seq FROM folds WHERE collection = ?", collection)
        return 0 if found is None else found

    def forget_before(self, seq: int) -> int:
        """Let go of images that every collection which may still be served holds. Returns how many."""
        with self._db.writing() as db:
            names = {name for (name,) in db.execute("SELECT image_id FROM images WHERE seq <= ?", (seq,))}
            self._remove(db, names)
        return len(names)

    @staticmethod
    def _seq(db: sqlite3.Connection) -> int:
        return db.execute("SELECT seq FROM counter").fetchone()[0]

    @staticmethod
    def _next(db: sqlite3.Connection) -> int:
        return db.execute("UPDATE counter SET seq = seq + 1 RETURNING seq").fetchone()[0]

    @staticmethod
    def _has(db: sqlite3.Connection, image_id: str) -> bool:
        return db.execute("SELECT 1 FROM images WHERE image_id = ?", (image_id,)).fetchone() is not None

    @staticmethod
    def _remove(db: sqlite3.Connection, image_ids: set[str]) -> None:
        db.executemany("DELETE FROM images WHERE image_id = ?", [(name,) for name in image_ids])
        db.execute("DELETE FROM originals WHERE photo NOT IN (SELECT photo FROM images)")


def _now() -> int:
    return round(datetime.now(UTC).timestamp() * 1e6)


def _blob(vector: np.ndarray) -> bytes:
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def _edits(db: sqlite3.Connection, since: int) -> list[dict[str, Any]]:
    found = db.execute("SELECT seq, at, kind, body FROM people_edits WHERE seq > ? ORDER BY seq", (since,))
    return [{**json.loads(body), "seq": seq, "at": at, "kind": kind} for seq, at, kind, body in found]
