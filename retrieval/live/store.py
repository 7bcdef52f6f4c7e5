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
from typing import Any

import numpy as np

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.node.cache import own_folder
from retrieval.live.database import Database
from retrieval.live.log.objects import Log, NotKept
from retrieval.live.log.operations import Operation, Status, perform, seq_of
from retrieval.live.log.shared import Shared
from retrieval.live.rows import LiveRow, NewImage, blob_of, row_of, values_of
from retrieval.live.schema import CHANGED_ROWS, FOLLOWED, SCHEMA, VERSION

logger = logging.getLogger(__name__)

FOLDER, FILE = "live", "gallery.db"
_TOGETHER = 1000  # embeddings that are one change: of 2,048 numbers they are 11 MB in a log, and a put has seconds


class ReadOnly(ValueError):
    """A gallery that cannot be changed, because its workspace cannot be written."""


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

    def __init__(self, path: Path, log: Log | None = None) -> None:
        """Args: log: that several hosts write; the file is this host's tables of it.

        Raises: ValueError if the file is of another version, or none of ours; OSError if the log cannot be read.
        """
        self._db = Database(path, SCHEMA if log is None else (*SCHEMA, *FOLLOWED), VERSION)
        self.watch, self.backup = self._db.watch, self._db.backup
        self._shared = None
        if log is not None:
            try:
                self._shared = Shared(self._db, log)
            except BaseException:
                self._db.close()
                raise

    @classmethod
    def open(cls, workspace: Folder | str, near: Path | None = None) -> Store:
        """That of a workspace; made if there is none yet.

        Args: near: where this host keeps its tables of a gallery that several share; $RETRIEVAL_CACHE says, otherwise.

        Raises: ReadOnly if the workspace cannot be written, and nothing was ever changed there; OSError if storage
            cannot be reached; ValueError as the constructor.
        """
        live = Folder.of(workspace) / FOLDER
        if is_shared(workspace):
            log = Log(live, beside=FILE)
            return cls(_tables_of(log, near or own_folder(FOLDER)), log)
        folder = Path(live.path)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(folder / FILE)

    @classmethod
    def open_if_possible(cls, workspace: Folder | str) -> Store | None:
        """None where the gallery cannot be changed: on a disk or in an object store that may only be read."""
        try:
            return cls.open(workspace)
        except (ReadOnly, PermissionError) as error:
            logger.warning("the gallery stays as it was sealed: %s", error)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            logger.warning("the gallery stays as it was sealed: %s", error)
        return None

    @property
    def is_shared(self) -> bool:
        """Whether other hosts may change it too."""
        return self._shared is not None

    def unseen_s(self) -> float:
        """How long ago this host last saw all that others had changed, in seconds; 0 where there are no others."""
        return 0.0 if self._shared is None else self._shared.unseen_s()

    def close(self) -> None:
        """Of all threads; none may be in the middle of something."""
        if self._shared is not None:
            self._shared.close()
        self._db.close()

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
        told = {"at": _now(), "model": model, "images": [values_of(one) for one in images], "original": original}
        return self._do("add", **told, replace=replace, instead_of=list(instead_of))

    def delete(self, image_ids: Sequence[str], receipt: dict[str, Any]) -> dict[str, Any]:
        """Delete these images, live ones and sealed ones, and write a receipt. On disk when it returns.

        Args: receipt: what it shall say besides.

        Returns: the receipt, with receipt_id, deleted, at and live.
        """
        return self._do("delete", at=_now(), image_ids=list(image_ids), receipt=receipt)

    def edit_people(self, kind: str, body: dict[str, Any]) -> int:
        """Write down that people were put right: merge, name, split. Returns the number of the change."""
        return self._do("edit_people", at=_now(), kind=kind, body=body)

    def receipt(self, receipt_id: str) -> dict[str, Any] | None:
        body = self._db.value("SELECT body FROM receipts WHERE receipt_id = ?", receipt_id)
        return None if body is None else json.loads(body)

    def changed(self, since: int, model: str) -> Changed:
        """What is different since the change of this number, with embeddings of this model where there are any."""
        with self._db.reading() as db:
            rows = db.execute(CHANGED_ROWS, (model, since)).fetchall()
            deleted = db.execute("SELECT image_id, seq FROM deletions WHERE seq > ?", (since,)).fetchall()
            return Changed(
                seq=seq_of(db),
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
        made = [[image_id, seq, blob_of(vector)] for (image_id, seq), vector in vectors.items()]
        for start in range(0, len(made), _TOGETHER):
            self._do("keep_embeddings", model=model, vectors=made[start : start + _TOGETHER])

    def note_fold(self, collection: str, seq: int) -> None:
        """A sealed collection, by its fingerprint, holds every change up to this one. Said before it is published."""
        self._do("note_fold", at=_now(), collection=collection, seq=seq)

    def folded(self, collection: str) -> int:
        """Up to which change a sealed collection holds them; 0: it was made of photos alone."""
        found = self._db.value("SELECT seq FROM folds WHERE collection = ?", collection)
        return 0 if found is None else found

    def forget_before(self, seq: int) -> int:
        """Let go of images that every collection which may still be served holds. Returns how many."""
        return self._do("forget_before", seq=seq)

    def compact_log(self) -> None:
        """Where several hosts share the gallery: let the log go of all that was erased. Nothing to do elsewhere."""
        if self._shared is not None:
            self._shared.compact()

    def _do(self, kind: str, /, **told: Any) -> Any:
        operation = Operation(kind, told)
        if self._shared is not None:
            try:
                return self._shared.commit(operation)
            except PermissionError as error:
                raise ReadOnly(str(error)) from error
        with self._db.writing() as db:
            return perform(db, operation)


def is_shared(workspace: Folder | str) -> bool:
    """Whether several hosts may change a gallery: in an object store, and where somebody made `live/log`."""
    root = Folder.of(workspace)
    return not root.is_local or (Path(root.path) / FOLDER / "log").is_dir()


def _tables_of(log: Log, near: Path) -> Path:
    """This host's file for a log. Files of a log that is no more, with all that was in it, go.

    Raises: ReadOnly if there is no log and none can be begun, or its store would lose changes.
    """
    try:
        name = log.begin()
    except NotKept as error:
        raise ReadOnly(str(error)) from error
    except OSError as error:
        name = log.name()
        if name is None:
            raise ReadOnly(f"The gallery cannot be changed: {error}") from error
        logger.warning("the gallery can be followed, not changed: %s", error)
    folder = near / hashlib.sha256(log.live.uri.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for other in folder.iterdir():
        if other.is_file() and not other.name.startswith(name):
            other.unlink(missing_ok=True)
    return folder / f"{name}.db"


def _now() -> int:
    return round(datetime.now(UTC).timestamp() * 1e6)


def _edits(db: sqlite3.Connection, since: int) -> list[dict[str, Any]]:
    found = db.execute("SELECT seq, at, kind, body FROM people_edits WHERE seq > ? ORDER BY seq", (since,))
    return [{**json.loads(body), "seq": seq, "at": at, "kind": kind} for seq, at, kind, body in found]
