"""pycolmap, imported without the signal handlers that it leaves behind.

Its logging library takes SIGTERM and the signals of a crash, and then prints a stack: it asks for memory to do so. A
process that is told to end, or crashes, while it holds the allocator's lock then waits for itself for ever. (Seen: a
process at SIGTERM, which only SIGKILL ended.) A worker that hangs costs its deadline, one that dies
is replaced at once.
"""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Iterator
from contextlib import contextmanager

_TAKEN = (signal.SIGTERM, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)
_SIZE = 256  # bytes, more than a struct sigaction has anywhere


@contextmanager
def handlers_kept() -> Iterator[None]:
    """What these signals do after the block is what they did before, in any thread, for handlers in C too."""
    libc = ctypes.CDLL(None)
    before = {number: ctypes.create_string_buffer(_SIZE) for number in _TAKEN}
    for number, action in before.items():
        libc.sigaction(int(number), None, action)
    try:
        yield
    finally:
        for number, action in before.items():
            libc.sigaction(int(number), action, None)


with handlers_kept():
    import pycolmap

__all__ = ["handlers_kept", "pycolmap"]
