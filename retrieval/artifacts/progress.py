"""How far long work is: whoever does it tells, whoever started it shows."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much: ("fill features", 300, 4367)."""


def silent(what: str, done: int, total: int) -> None:
    """For work that nobody watches."""
