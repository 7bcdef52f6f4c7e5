"""How far long work is: whoever does it tells, whoever started it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much: ("fill features", 300, 4367)."""

T = TypeVar("T")


def silent(what: str, done: int, total: int) -> None:
    """For work that nobody watches."""


def counted(items: Sequence[T], what: str, progress: Progress) -> Iterator[T]:
    """The items; `progress` is told each time that one of them is done."""
    for done, item in enumerate(items, start=1):
        yield item
        progress(what, done, len(items))
