"""Processor time that processes use: says what something costs also while others keep the machine busy."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path


def used(root: int, but: Iterable[int] = (), *, itself: bool = False) -> float:
    """Seconds of a core that all processes below `root` have used until now, those of children that have ended too.

    Args: but: processes that are left out, with all below them. itself: count `root` too.
    """
    children, seconds, left = defaultdict(list), dict[int, float](), set(but)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        pid, parent = int(stat.parent.name), int(fields[1])
        children[parent].append(pid)
        seconds[pid] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    total, waiting = 0.0, [root] if itself else list(children[root])
    while waiting:
        pid = waiting.pop()
        if pid not in left:
            total += seconds[pid]
            waiting += children[pid]
    return total
