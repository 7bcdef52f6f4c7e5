"""Waiting for what another thread, task or process does: no longer than it takes, and never for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

MOST_S = 60.0
"""For a machine that does much else; what is right is there at once."""


def until(true: Callable[[], object]) -> None:
    """Raises: AssertionError if it does not become true."""
    end = time.monotonic() + MOST_S
    while not true():
        assert time.monotonic() < end, f"after {MOST_S:g} s still not so"
        time.sleep(0.01)


async def eventually(true: Callable[[], object]) -> None:
    """The same while this event loop goes on."""
    end = time.monotonic() + MOST_S
    while not true():
        assert time.monotonic() < end, f"after {MOST_S:g} s still not so"
        await asyncio.sleep(0.01)
