"""Reading ahead: the next item is made ready in the background while this one is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetch(executor: Executor, make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[tuple[Item, Made]]:
    """(item, make(item)) of each in turn; one more than is used lies ready."""
    waiting: tuple[Item, Future[Made]] | None = None
    for item in items:
        coming = (item, executor.submit(make, item))
        if waiting is not None:
            yield waiting[0], waiting[1].result()
        waiting = coming
    if waiting is not None:
        yield waiting[0], waiting[1].result()
