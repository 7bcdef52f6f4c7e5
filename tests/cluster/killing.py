"""Kill -9 of one Ray worker of this test session, by what it runs, at a moment that its files show."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def workers(title: str) -> list[int]:
    """Process ids of this session's Ray workers whose title contains `title`. Other clusters' are left out."""
    return [pid for pid, its in titles(os.getpid()).items() if title in its]


def titles(below: int) -> dict[int, str]:
    """Process id -> title of the Ray workers that descend from the process `below`."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().decode(errors="replace")
            except OSError:  # it ended meanwhile
                continue
            if command.startswith("ray::") and below in _ancestors(int(folder.name)):
                found[int(folder.name)] = command.rstrip("\0 ")
    return found


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return
        pid = int(status.partition("PPid:")[2].split()[0])
        yield pid


@contextmanager
def killed_when(ready: Callable[[], bool], title: str) -> Iterator[list[int]]:
    """Beside the block, wait until `ready()` and kill -9 one worker. Yields a list that will hold its process id."""
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            if ready() and (found := workers(title)):
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()
