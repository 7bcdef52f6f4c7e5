"""The same again after a while, for as long as a job may wait.

Whoever runs a job says how long::

    with patience():                                     # by default five minutes, or as $RETRIEVAL_PATIENCE says
        patiently(lambda: read(path), f"reading {path}")

Without that nothing is waited for and errors come as they are: a service must answer now.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from retrieval.artifacts.storage.failures import Kind, kind_of, outage

logger = logging.getLogger(__name__)

T = TypeVar("T")

VARIABLE = "RETRIEVAL_PATIENCE"
"""Environment: seconds that a job waits for storage that does not answer; 300 if it is not set."""

_AT_MOST: dict[Kind, float] = {"credentials": 10.0, "memory": 60.0, "address": 0.0, "full": 0.0}
"""Seconds, where waiting helps less: a node's role may be a moment late, a neighbour may give memory back."""
_FIRST, _LONGEST = 0.2, 20.0  # seconds between two tries
_SAID_AFTER = 3  # tries: what mends itself at once is not worth a line

_seconds = 0.0


def default_patience() -> float:
    """Seconds. Raises: ValueError if $RETRIEVAL_PATIENCE is no number of 0 or more."""
    return seconds_told(VARIABLE, "300")


def seconds_told(variable: str, default: str) -> float:
    """What a variable of the environment says. Raises: ValueError if that is no number of 0 or more."""
    told = os.environ.get(variable, default)
    try:
        seconds = float(told)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"${variable} is {told!r}, expected seconds, 0 or more.")
    return seconds


@contextmanager
def patience(seconds: float | None = None) -> Iterator[None]:
    """For the length of the block, all of this process waits that long. None: `default_patience`."""
    global _seconds
    before, _seconds = _seconds, default_patience() if seconds is None else seconds
    try:
        yield
    finally:
        _seconds = before


def current() -> float:
    """Seconds that this process waits now: what a driver tells its workers."""
    return _seconds


def patiently(work: Callable[[], T], what: str) -> T:
    """What `work` returns, which may be called several times: it must be safe to repeat.

    The waits grow from 0.2 s to 20 s and are drawn at random, so that a thousand workers do not come back at once.

    Args: what: is being done, for messages: "reading s3://bucket/photos/a.jpg".

    Raises: Outage after the last try that failed by storage, credentials, a full disk or memory; the error itself
        where nobody asked for patience, and any other error at once.
    """
    began, tries = time.monotonic(), 0
    while True:
        try:
            return work()
        except Exception as error:
            kind = kind_of(error)
            if kind is None or not _seconds:
                raise
            pause = random.uniform(0.5, 1.0) * min(_LONGEST, _FIRST * 2.0**tries)
            waited = time.monotonic() - began
            if waited + pause > min(_seconds, _AT_MOST.get(kind, _seconds)):
                raise outage(error, kind, what, waited) from error
            tries += 1
            if tries >= _SAID_AFTER:
                logger.warning("%s failed (%s), try %d follows in %.1f s", what, _short(error), tries + 1, pause)
        if kind == "memory":
            gc.collect()
        time.sleep(pause)


def _short(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
