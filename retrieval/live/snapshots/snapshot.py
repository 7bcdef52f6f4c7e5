"""A snapshot: which version was current, and every change since it was sealed, as one sealed folder of the workspace.

It is taken while the service runs: the changes are copied by SQLite's own backup, as they are at one moment. Sealed
folders never change, so their names and fingerprints are enough; a snapshot is as large as the changes are.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import hash_file
from retrieval.artifacts.manifest import MANIFEST, begin, read_manifest, seal
from retrieval.artifacts.published import CURRENT, Published, history, publish
from retrieval.live.store import FILE, FOLDER, ReadOnly, Store, is_shared

SNAPSHOTS, KIND = "snapshots", "snapshot"

_BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside its file; it would be taken for a part of another file put in its place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """One that was taken. name: its time, UTC. path: below the workspace. files, num_bytes: what it holds."""

    name: str
    path: str
    files: int
    num_bytes: int


def take(workspace: Folder, store: Store | None = None) -> Snapshot:
    """Copy what is served at this moment. Args: store: that of the workspace, if it is open; it stays open.

    Raises: ValueError if nothing is published; ReadOnly if the workspace is not one host's own; OSError if the
        disk is full, and then the folder is not sealed.
    """
    if is_shared(workspace):
        raise ReadOnly(
            f"{workspace} is in an object store, or several hosts share it: snapshots are of one host's disk. Copy the "
            f"whole workspace instead, `live` last: its objects are never half written."
        )
    current = history(workspace)[0]
    name = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S-%fZ")
    folder = workspace / SNAPSHOTS / name
    work = {"kind": KIND, "config": {"name": name, "version": current.version}, "inputs": current.fingerprints}
    opened = Store.open(workspace) if store is None else store
    try:
        Path((workspace / SNAPSHOTS).path).mkdir(mode=0o700, exist_ok=True)  # it holds photos, as the store does
        begin(folder, **work)
        opened.backup(Path(folder.path) / FILE)
    finally:
        if store is None:
            opened.close()
    folder.write_bytes(CURRENT, workspace.read_bytes(CURRENT))
    for place in (FILE, CURRENT):
        with (Path(folder.path) / place).open("rb") as written:
            os.fsync(written.fileno())
    seal(folder, **work, counts={"changes": _seq_of(Path(folder.path) / FILE)})
    return _described(workspace, name)


def snapshots(workspace: Folder) -> list[Snapshot]:
    """All that are finished, the oldest first."""
    names = {name.partition("/")[0] for name in (workspace / SNAPSHOTS).list() if name.endswith(f"/{MANIFEST}")}
    return [_described(workspace, name) for name in sorted(names)]


def check(workspace: Folder, name: str) -> Published:
    """That a snapshot is whole and can be put back. Returns: the version that was current.

    Raises: ValueError if a file is not what was sealed, the changes cannot be read, or the version's folders are gone.
    """
    names = [one.name for one in snapshots(workspace)]
    if name not in names:
        raise ValueError(f"{workspace} has no snapshot {name[:80]!r}. It has: {', '.join(names) or 'none'}.")
    folder = workspace / SNAPSHOTS / name
    manifest = read_manifest(folder, KIND)
    for file, sha256 in manifest.all_files.items():
        if not folder.exists(file) or hash_file(folder, file) != sha256:
            raise ValueError(f"{folder}/{file} is not the file that was sealed: the snapshot is damaged.")
    with closing(sqlite3.connect(f"file:{folder.path}/{FILE}?immutable=1", uri=True)) as db:
        try:
            (said,) = db.execute("PRAGMA integrity_check").fetchone()
        except sqlite3.DatabaseError as error:
            said = str(error)
    if said != "ok":
        raise ValueError(f"{folder}/{FILE} is damaged: {said}.")
    current = history(folder)[0]
    for kind, place in current.folders(workspace).items():
        if read_manifest(place, kind).fingerprint != current.fingerprints[kind]:
            raise ValueError(f"{place} was replaced since the snapshot was taken.")
    return current


def restore(workspace: Folder, name: str) -> Snapshot:
    """Put a snapshot back: its version is published again, and the changes are those of then. The service must be
    stopped: it would go on from changes that are no more. What is there now is kept as another snapshot before.

    Returns: that snapshot.

    Raises: ValueError as `check`.
    """
    current = check(workspace, name)
    kept = take(workspace)
    live = Path(workspace.path) / FOLDER
    temp = live / f"{FILE}.tmp-{os.getpid()}"
    try:
        shutil.copyfile(f"{(workspace / SNAPSHOTS / name).path}/{FILE}", temp)
        with temp.open("rb") as written:
            os.fsync(written.fileno())
        for beside in _BESIDE:
            (live / f"{FILE}{beside}").unlink(missing_ok=True)
        os.replace(temp, live / FILE)
    finally:
        temp.unlink(missing_ok=True)
    publish(workspace, **current.folders(workspace))
    return kept


def _described(workspace: Folder, name: str) -> Snapshot:
    sizes = (workspace / SNAPSHOTS / name).list()
    return Snapshot(name=name, path=f"{SNAPSHOTS}/{name}", files=len(sizes), num_bytes=sum(sizes.values()))


def _seq_of(file: Path) -> int:
    """Number of the newest change in a store's file."""
    store = Store(file)
    try:
        return store.seq()
    finally:
        store.close()
