"""One function of many pieces, each in a task, from inside a task."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def by_tasks(function: Callable[..., Any], pieces: Iterable[Any], *others: Any) -> Iterator[Any]:
    """`function(piece, *others)` of each piece, in order, twice as many at a time as there are cores. One piece alone
    is done here.

    For whoever is a task itself: what fails beyond Ray's own retries fails that task, which is done again as a whole.
    """
    pieces = iter(pieces)
    first = list(itertools.islice(pieces, 2))
    if len(first) < 2:  # to start a process takes seconds
        yield from (function(piece, *others) for piece in first)
        return
    import ray

    shared = [ray.put(other) for other in others]
    task: Any = ray.remote(num_cpus=1)(function)  # its stub knows no functions
    running: collections.deque[Any] = collections.deque()
    at_once = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    for piece in itertools.chain(first, pieces):
        if len(running) == at_once:
            yield ray.get(running.popleft())
        running.append(task.remote(piece, *shared))
    while running:
        yield ray.get(running.popleft())
