"""One writer a folder: of two, the first wins and the other says so. What a dead writer left half is taken away.

On a disk the kernel keeps a lock on `.owner` for as long as the process lives: nothing to wait for when it died. In an
object store each writer puts an object of its own below `.owner/` and looks who else has one: the first, by the store's
clock, wins. It puts its object again every ten seconds; one that was not for a minute is of a dead writer. See
docs/decisions/one-writer-a-folder.md, which says what two writers could do to each other if both got past this.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import pyarrow.fs as pafs

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.storage.failures import Outage
from retrieval.artifacts.storage.patience import patiently
from retrieval.artifacts.writing.done import OWNERS
from retrieval.artifacts.writing.seam import TEMP

logger = logging.getLogger(__name__)

BEAT_S, STALE_S = 10.0, 60.0
"""How often an owner in a store shows that it lives, and how long after the last time it is taken for dead."""

SETTLE_S = 1.5
"""How long a claim in a store waits to be seen by others who put theirs at the same time: stores tell whole seconds."""

_held: set[str] = set()


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """Who writes. machine: this boot and these process numbers. asked: when its claim came, by the store's clock."""

    job: str
    host: str
    pid: int
    since: str
    machine: str
    started: str
    asked: int | None = None

    @classmethod
    def of_this_process(cls, job: str) -> Owner:
        """Args: job: what it does, in a word."""
        pid = os.getpid()
        return cls(
            job=job,
            host=socket.gethostname(),
            pid=pid,
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=_machine(),
            started=_started(pid),
        )

    @property
    def is_dead(self) -> bool:
        """Surely: it was a process of this machine, and there is no such process any more."""
        return bool(self.machine) and self.machine == _machine() and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"{self.job} (process {self.pid} on {self.host}, since {self.since})"


@contextmanager
def sole_writer(folder: Folder, job: str) -> Iterator[None]:
    """Be the only one who writes below `folder` for the length of the block. In it again, it does nothing.

    Raises: ValueError if somebody else is at work there, or nothing can be written there; Outage if a store does not
        answer for as long as the job is patient.
    """
    if folder.uri in _held:
        yield
        return
    claim = _on_disk(folder, job) if folder.is_local else _in_store(folder, job)
    with claim:
        _held.add(folder.uri)
        try:
            yield
        finally:
            _held.discard(folder.uri)


def _refused(folder: Folder, owner: Owner | None) -> ValueError:
    who = "another process" if owner is None else str(owner)
    return ValueError(f"{folder} is being written by {who}. Wait until it is done, or give another output folder.")


def _unwritable(folder: Folder, error: OSError) -> ValueError:
    return ValueError(f"Cannot write to {folder}: {error}. Name a folder that can be made and written with --out.")


# -- on a disk -------------------------------------------------------------------------------------------------------


@contextmanager
def _on_disk(folder: Folder, job: str) -> Iterator[None]:
    new = not os.path.isdir(folder.path)
    try:
        lock = _locked(folder)
        lock.truncate(0)
        lock.write(json.dumps(asdict(Owner.of_this_process(job))))
        lock.flush()
        sweep(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.remove(folder.file(OWNERS))  # while it is locked: whoever waits for it looks whether it has its name
        lock.close()
        if new:
            with contextlib.suppress(OSError):  # nothing came to lie there
                os.rmdir(folder.path)


def _locked(folder: Folder) -> TextIO:
    """The folder's lock, held. Raises: ValueError if another holds it."""
    while True:
        os.makedirs(folder.path, exist_ok=True)
        lock = open(folder.file(OWNERS), "a+")  # noqa: SIM115 (it is held for as long as the block lasts)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = _read(lock.read())
            lock.close()
            raise _refused(folder, owner) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), os.stat(folder.file(OWNERS))):
                return lock
        lock.close()  # of an owner who has just gone


def forget_the_dead(folder: Folder) -> None:
    """Take away the lock of an owner that died when all was done: nobody comes to write a sealed folder after it. That
    of one that lives stays, and so does what may not be changed. In a store there is nothing to lock: claims stay."""
    if not folder.is_local:
        return
    with contextlib.suppress(OSError), open(folder.file(OWNERS), "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.remove(folder.file(OWNERS))  # while it is locked, as its owner would have


def sweep(folder: Folder) -> None:
    """Take away the halves of files that a dead writer left. Only for the sole writer: they may be another's."""
    left = [path for path in Path(folder.path).rglob(f"*{TEMP}*") if path.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    if left:
        logger.info("%s: removed %d unfinished files of a run that ended in the midst of them", folder, len(left))


# -- in an object store ----------------------------------------------------------------------------------------------


@contextmanager
def _in_store(folder: Folder, job: str) -> Iterator[None]:
    owners, name, mine = folder / OWNERS, uuid.uuid4().hex, Owner.of_this_process(job)
    try:
        owner = patiently(lambda: _put(owners, name, mine), f"claiming {folder}")
    except Outage:
        raise
    except OSError as error:
        raise _unwritable(folder, error) from error
    over = threading.Event()
    beat = threading.Thread(target=_beat, args=(owners, name, owner, over), daemon=True)
    try:
        time.sleep(SETTLE_S)
        _outlive(folder, owners, name, owner)
        beat.start()
        yield
    finally:
        over.set()
        if beat.is_alive():
            beat.join()
        with contextlib.suppress(OSError):  # it grows stale
            owners.fs.delete_file(owners.file(name))


def _put(owners: Folder, name: str, owner: Owner) -> Owner:
    """Write a claim. Returns: it, with the time by the store's clock if it is the first time."""
    with owners.fs.open_output_stream(owners.file(name), compression=None) as stream:
        stream.write(json.dumps(asdict(owner)).encode())
    if owner.asked is not None:
        return owner
    info = owners.fs.get_file_info(owners.file(name))
    return Owner(**asdict(owner) | {"asked": info.mtime_ns})


def _beat(owners: Folder, name: str, owner: Owner, over: threading.Event) -> None:
    while not over.wait(BEAT_S):
        try:
            _put(owners, name, owner)
        except OSError as error:  # it beats again; if it cannot for a minute, another may take over
            logger.warning("%s: cannot say that it is being written here: %s", owners, error)


def _outlive(folder: Folder, owners: Folder, name: str, owner: Owner) -> None:
    """Wait until no claim of a living writer is older than ours. Raises: ValueError if one lives."""
    first_seen: dict[str, int] = {}
    while True:
        rivals, now = patiently(lambda: _rivals(owners, name), f"looking who writes to {folder}")
        ahead = False
        for place, (rival, beat) in rivals.items():
            if (rival is not None and rival.is_dead) or now - beat > STALE_S * 1e9:
                with contextlib.suppress(OSError):
                    owners.fs.delete_file(owners.file(place))
                continue
            if rival is not None and (rival.asked or beat, place) > (owner.asked or 0, name):
                continue  # it came later, and gives way
            if first_seen.setdefault(place, beat) != beat:
                raise _refused(folder, rival)
            ahead = True
        if not ahead:
            return
        logger.info("%s was being written a moment ago: waiting to see whether that writer still lives", folder)
        time.sleep(BEAT_S / 2)
        patiently(lambda: _put(owners, name, owner), f"claiming {folder}")


def _rivals(owners: Folder, name: str) -> tuple[dict[str, tuple[Owner | None, int]], int]:
    """The other claims with the time of their last beat, and the time of our own: nanoseconds by the store's clock.

    Of one that cannot be read it is not known who came first, only that somebody beats: a mounted bucket may show a
    claim while it is written.
    """
    found, now = {}, 0
    for info in owners.fs.get_file_info(pafs.FileSelector(owners.path, allow_not_found=True)):
        if info.base_name == name:
            now = info.mtime_ns
        elif info.type == pafs.FileType.File:
            with contextlib.suppress(FileNotFoundError):  # it has just gone
                found[info.base_name] = (_read(owners.read_bytes(info.base_name).decode()), info.mtime_ns)
    return found, now


def _read(content: str) -> Owner | None:
    """None for what was not written by us, or is being written at this moment."""
    try:
        return Owner(**json.loads(content))
    except (ValueError, TypeError):
        return None


def _machine() -> str:
    """Empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When the process began, in ticks since the boot; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
