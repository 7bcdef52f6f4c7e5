"""Copies on a node's own disk: made once by one process, whole or not at all, and let go oldest first.

What is read at random (an index that is mapped, a bundle, photos that train) cannot be read out of an object store. It
is copied to the node under a name made of its content, and whoever uses a copy holds it::

    with NodeCache.of_node().folder(index) as kept:
        Searcher.open(kept.folder)

A lock beside each copy says who does what: shared by all that use it, held alone by the one that makes or removes it.
So several processes wait for one copy instead of making several, and what is in use is not removed. The lock of a
process that dies is gone with it; what it left half made is removed by the next.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.hashing import digest
from retrieval.artifacts.manifest import MANIFEST, read_manifest

logger = logging.getLogger(__name__)

LIMIT = "RETRIEVAL_CACHE_GB"
"""Environment: most that the copies of a node may take together, in 10^9 bytes; unset: as much as the disk has."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOCK, _TEMP = ".lock", ".tmp-"
_PIECE = 4 << 20
_AT_ONCE = 4  # files that are fetched at once
_LOOK_S = 0.01


def own_folder(name: str) -> Path:
    """A folder of this user's below $RETRIEVAL_CACHE, else the user's cache folder, else the temporary folder.

    Others must not be able to write to it: what lies there is run and served.

    Raises: ValueError if nothing can be written where $RETRIEVAL_CACHE says, or the folder belongs to another user.
    """
    named, xdg = os.environ.get("RETRIEVAL_CACHE"), os.environ.get("XDG_CACHE_HOME")
    base = Path(named) if named else Path(xdg or "~/.cache").expanduser() / "retrieval"
    try:
        (base / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        writable = os.access(base / name, os.W_OK)
    except (OSError, RuntimeError):  # no home, or one that is read only
        writable = False
    if writable:
        return base / name
    if named:
        raise ValueError(f"$RETRIEVAL_CACHE is {named}, and nothing can be written there. Name another folder.")
    own = Path(tempfile.gettempdir()) / f"retrieval-{name}-{os.getuid()}"
    own.mkdir(exist_ok=True, mode=0o700)
    if own.stat().st_uid != os.getuid():
        raise ValueError(f"{own} belongs to another user. Name a folder of your own with $RETRIEVAL_CACHE.")
    return own


class Kept:
    """A copy in use. It stays on the disk until it is closed, by whoever holds it or because nobody does any more."""

    def __init__(self, path: Path, lock: int | None = None) -> None:
        """Args: lock: a descriptor that is locked, if the path is a copy; it is closed here."""
        self.path = path
        self._unlock = None if lock is None else weakref.finalize(self, os.close, lock)

    @property
    def folder(self) -> Folder:
        """The copy as a folder."""
        return Folder.of(self.path)

    def close(self) -> None:
        """Let it go; it may be removed from now on. Files of it that are open or mapped stay readable."""
        if self._unlock is not None:
            self._unlock()

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeCache:
    """The copies below one folder of a node."""

    root: Path
    limit: int | None = None
    """Most bytes that all copies take together; None: as much as the disk has."""

    @classmethod
    def of_node(cls, root: str | Path | None = None, limit_gb: float | None = None) -> NodeCache:
        """Args: root, limit_gb: by default `own_folder("copies")`, and what $RETRIEVAL_CACHE_GB says.

        Raises: ValueError if that is no number above 0, or there is no folder to write to.
        """
        if limit_gb is None and (told := os.environ.get(LIMIT)):
            try:
                limit_gb = float(told)
            except ValueError:
                limit_gb = -1.0
            if not limit_gb > 0:
                raise ValueError(f"${LIMIT} is {told!r}, expected a number of gigabytes above 0.")
        limit = None if limit_gb is None else int(limit_gb * 1e9)
        return cls(root=own_folder("copies") if root is None else Path(root), limit=limit)

    def folder(self, folder: Folder, *, also_local: bool = False, only: Sequence[str] | None = None) -> Kept:
        """A sealed folder as a folder on this node's disk: itself where it lies on one, else its copy.

        Each file is checked against the manifest's sha256 while it is copied.

        Args:
            also_local: copy what has a path here too, for file systems that are mounted from elsewhere.
            only: names of its files that are copied; None: all of them.

        Raises: ValueError if the folder is not sealed, a file is not what was sealed, or the disk is full.
        """
        if folder.is_local and not also_local:
            return Kept(Path(folder.path))
        manifest = read_manifest(folder)
        sizes = folder.list()
        if missing := [name for name in manifest.all_files if name not in sizes]:
            raise ValueError(f"{folder} lacks {missing[0]}, which was sealed there. Run its step again.")
        wanted = {name: sha256 for name, sha256 in manifest.all_files.items() if only is None or name in only}
        some = "" if only is None else f"-{digest(sorted(only))[:12]}"

        def copy(to: Path) -> None:
            with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch") as pool:
                for _ in pool.map(lambda name: _fetch(folder, name, to / name, wanted[name]), wanted):
                    pass
            _fetch(folder, MANIFEST, to / MANIFEST, None)

        num_bytes = sum(sizes[name] for name in wanted)
        return self.keep(f"{manifest.kind}-{manifest.fingerprint[:32]}{some}", copy, num_bytes, f"the {manifest.kind}")

    def keep(self, name: str, make: Callable[[Path], None], num_bytes: int, what: str) -> Kept:
        """The copy called `name`, made by this process or any other of the node. The others wait while one makes it.

        Args: make: called with a path where nothing lies; makes a file or a folder there, or raises. num_bytes: that it
            will take, about. what: it is called in messages.

        Raises: ValueError if the disk is full, and cannot be made less so; whatever `make` raises. Nothing of it stays.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / name
        while True:
            lock = os.open(f"{path}{_LOCK}", os.O_RDWR | os.O_CREAT, 0o600)
            kept = Kept(path, lock)  # from here on it is closed in any case
            fcntl.flock(lock, fcntl.LOCK_SH)
            if path.exists():
                os.utime(lock)
                return kept
            fcntl.flock(lock, fcntl.LOCK_UN)
            try:
                # Never wait to be alone: meanwhile another may have made it and hold it for as long as it is in use.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOOK_S)  # another makes it, or looks as we did
            else:
                if not path.exists():
                    self._make(path, make, num_bytes, what)
            kept.close()  # between being alone and sharing, another may remove it: look again

    def _make(self, path: Path, make: Callable[[Path], None], num_bytes: int, what: str) -> None:
        _remove_halves(path)
        self._make_room(path.name, num_bytes, what)
        temp = path.with_name(f"{path.name}{_TEMP}{os.getpid()}")
        try:
            make(temp)
            os.replace(temp, path)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise ValueError(self._full(num_bytes, what)) from error
        finally:
            _remove(temp)
        logger.info("copied %s to %s, %.1f MB", what, path, num_bytes / 1e6)

    def _make_room(self, name: str, num_bytes: int, what: str) -> None:
        """Remove copies that nobody uses, the one used longest ago first, until there is room.

        Raises: ValueError if there is not."""
        if self.limit is not None and num_bytes > self.limit:
            raise ValueError(
                f"{what} has {num_bytes / 1e9:.3f} GB, and copies of this node may take {self.limit / 1e9:.3f} GB "
                f"together (${LIMIT}). Allow more."
            )
        for other in self._others(name):
            if self._fits(num_bytes):
                return
            with other.open("a") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # in use, or being made
                copy = other.with_suffix("")
                _remove_halves(copy)
                if copy.exists():
                    os.replace(copy, aside := copy.with_name(f"{copy.name}{_TEMP}{os.getpid()}"))
                    _remove(aside)
                    logger.info("removed the copy %s to make room", copy)
        if not self._fits(num_bytes):
            raise ValueError(self._full(num_bytes, what))

    def _others(self, name: str) -> list[Path]:
        """Locks of the other copies, the one used longest ago first."""
        locks = [lock for lock in self.root.glob(f"*{_LOCK}") if lock.name != f"{name}{_LOCK}"]
        return sorted(locks, key=lambda lock: lock.stat().st_mtime_ns)

    def _fits(self, num_bytes: int) -> bool:
        held = sum(_size(lock.with_suffix("")) for lock in self.root.glob(f"*{_LOCK}"))
        allowed = self.limit is None or held + num_bytes <= self.limit
        return allowed and num_bytes <= shutil.disk_usage(self.root).free

    def _full(self, num_bytes: int, what: str) -> str:
        free = shutil.disk_usage(self.root).free
        limit = "" if self.limit is None else f", {self.limit / 1e9:.3f} GB may be used (${LIMIT})"
        return (
            f"There is no room for {what} in {self.root}: it needs {num_bytes / 1e9:.3f} GB, the disk has "
            f"{free / 1e9:.3f} GB free{limit}, and all other copies there are in use. Free some, or name a folder on "
            f"another disk with $RETRIEVAL_CACHE."
        )


def _fetch(folder: Folder, name: str, to: Path, sha256: str | None) -> None:
    """Copy one file. Raises: ValueError if it has another hash than `sha256`."""
    to.parent.mkdir(parents=True, exist_ok=True)
    total = hashlib.sha256()
    with folder.fs.open_input_stream(folder.file(name)) as source, to.open("wb") as sink:
        while piece := source.read(_PIECE):
            total.update(piece)
            sink.write(piece)
        sink.flush()
        os.fsync(sink.fileno())  # the folder's name promises that it is whole, also after the power was cut
    if sha256 is not None and total.hexdigest() != sha256:
        raise ValueError(f"{folder}/{name} is not the file that was sealed: it was changed or damaged. Make it again.")


def _size(path: Path) -> int:
    total = 0
    for file in (path, *path.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # another process removes it
            total += file.stat().st_size if file.is_file() else 0
    return total


def _remove_halves(path: Path) -> None:
    for half in path.parent.glob(f"{path.name}{_TEMP}*"):
        _remove(half)


def _remove(path: Path) -> None:
    """A copy of ours: nothing else has such a name."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
