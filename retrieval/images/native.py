"""Native work on one photo: bounded in time by the kernel, and the one place where a test may have it crash or hang.

A decoder, a detector or COLMAP may never come back, hold the interpreter's lock meanwhile, and no thread can stop it.
So the time of one photo is kept by an interval timer whose signal ends the process; who started the process sees
that, looks for the photo and goes on without it (`ray_jobs.runtime.parallel.inquest`). Nothing is timed but after
`limit`.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

POISON = "RETRIEVAL_POISON"
"""For tests: `crash:WORD,hang:WORD,raise:WORD`. A photo is meant if its bytes hold the word, or their sha256 in hex
begins with it; where there are no bytes, as when COLMAP maps, if its image_id holds it."""


class BadImage(Exception):
    """A photograph that cannot be used. `reason` is a short slug that is counted, `detail` is for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


_lock = threading.Lock()
_seconds = 0.0
_until: dict[int, float] = {}
"""Thread -> when its photo must be done, by the monotonic clock."""


def limit(seconds: float) -> None:
    """Give native work on one photo so long in this process from now on. Then SIGALRM ends it; 0: never.

    Raises: ValueError below 0.
    """
    global _seconds
    if seconds < 0:
        raise ValueError(f"{seconds} seconds for a photo, expected 0 (for ever) or more.")
    ctypes.CDLL(None).signal(int(signal.SIGALRM), 0)  # SIG_DFL; Python's own may only be called by the main thread
    _seconds = seconds


@contextmanager
def one_photo(photos: int = 1) -> Iterator[None]:
    """Around native work on a photo, or on several together.

    Within another such block of the same thread the outer one's time counts; each of several threads has its own.
    """
    me = threading.get_ident()
    if not _seconds or me in _until:
        yield
        return
    with _lock:
        _until[me] = time.monotonic() + _seconds * photos
        _set_timer()
    try:
        yield
    finally:
        with _lock:
            del _until[me]
            _set_timer()


def _set_timer() -> None:
    """There is one a process: it is set for the photo whose time is over first."""
    left = max(min(_until.values()) - time.monotonic(), 1e-6) if _until else 0.0  # 0 stops it
    signal.setitimer(signal.ITIMER_REAL, left)


def strike(known: bytes) -> None:
    """Crash, hang or fail here if RETRIEVAL_POISON says so of this photo: its bytes, or its image_id as UTF-8."""
    if not (told := os.environ.get(POISON)):
        return
    for word in told.split(","):
        what, _, mark = word.partition(":")
        if mark and (mark.encode() in known or hashlib.sha256(known).hexdigest().startswith(mark)):
            _ENDS[what]()


def _crash() -> None:
    ctypes.string_at(0)


def _hang() -> None:
    while True:
        ctypes.PyDLL(None).pause()  # as the worst of native code does: with the interpreter's lock held


def _fail() -> None:
    raise RuntimeError("poisoned for a test")


_ENDS = {"crash": _crash, "hang": _hang, "raise": _fail}
