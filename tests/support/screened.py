"""A clock that goes when it is told to, and a screen that the log writes to."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ray_jobs.runtime.news.screen import Screen, ScreenHandler


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# --- arithmetic ---


@contextmanager
def on_the_log(screen: Screen) -> Iterator[None]:
    handler, logger = ScreenHandler(screen), logging.getLogger("ray_jobs.runtime.news.screen")
    logger.addHandler(handler)
    before, level = logger.propagate, logger.level
    logger.propagate = False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
        logger.setLevel(level)
