"""Processor time that processes use: says what something costs also while others keep the machine busy."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path


def used(root: int, but: Iterable[int] = (), *, itself: bool = False) -> float:
    """Seconds of a core that all processes below `root` have used until now, those of children that have ended too.

    Args: but: processes that are left out, with all below them. itself: count `root` too.
    """
    children, seconds = _processes(slice(11, 15))
    left = set(but)
    total, waiting = 0.0, [root] if itself else list(children[root])
    while waiting:
        pid = waiting.pop()
        if pid not in left:
            total += seconds[pid]
            waiting += children[pid]
    return total


def below(root: int) -> list[int]:
    """Processes that run below `root` now, and itself."""
    children, _ = _processes(slice(11, 13))
    found = [root]
    for pid in found:
        found += children[pid]
    return found


class Meter:
    """Seconds of a core that this process and all below it use within the block, those of processes that end too: Ray
    ends workers without asking what they used. What one uses in its last tenth of a second is lost."""

    seconds = 0.0

    def __enter__(self) -> Meter:
        self._seen: dict[int, float] = {}
        self._over = threading.Event()
        self._look()
        self._before = sum(self._seen.values())
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()
        self.seconds = sum(self._seen.values()) - self._before

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self._look()

    def _look(self) -> None:
        children, seconds = _processes(slice(11, 13))
        waiting = [os.getpid()]
        while waiting:
            pid = waiting.pop()
            self._seen[pid] = seconds.get(pid, 0.0)
            waiting += children[pid]


def _processes(fields_of: slice) -> tuple[dict[int, list[int]], dict[int, float]]:
    """Process -> those below it; and the sum of some fields of its /proc/PID/stat that count time, in seconds."""
    children, seconds = defaultdict[int, list[int]](list), dict[int, float]()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        pid, parent = int(stat.parent.name), int(fields[1])
        children[parent].append(pid)
        seconds[pid] = sum(map(int, fields[fields_of])) / os.sysconf("SC_CLK_TCK")
    return children, seconds
