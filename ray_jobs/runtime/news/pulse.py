"""A job's sign of life: a small file beside the folder it makes, written anew every few seconds while it works.

A folder that was begun says nothing of whether anybody still works on it. The pulse does: who, on which node, how far,
when last heard of; and, where the job ended without a seal, why. A job that is killed leaves its last beat, which grows
old. `ray_jobs.status` reads them. It lies outside the folder, whose files are hashed and sealed::

    W/model/4be1...        what the job makes
    W/model/.pulse/4be1...json
"""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from ray_jobs.runtime.news import progress
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import STARTED

logger = logging.getLogger(__name__)

PULSES = ".pulse"
EVERY = 15.0
"""Seconds between two beats."""
LOST_AFTER = 4
"""Beats that may be missed before a job counts as gone: storage fails for a while, and clocks differ."""
_FIRST_AFTER = 1.0  # seconds: what is refused at once leaves no trace
_LAST_WITHIN = 10.0  # seconds that the end of work waits for the last beat: storage may be away
_LONGEST_SENTENCE = 500
_beating: set[str] = set()


@dataclass(frozen=True, kw_only=True, slots=True)
class Pulse:
    """The last that was heard of the work on one folder."""

    job: str
    """What the step is called."""
    node: str
    process: int
    began: str
    """ISO 8601, UTC; so is `heard`."""
    heard: str
    every: float = EVERY
    state: Literal["running", "failed", "stopped"] = "running"
    doing: str = ""
    """What is being counted."""
    done: int = 0
    total: int = 0
    """0: nobody knows of how much."""
    why: str = ""
    """Of a job that failed: the error, in a sentence."""

    def silent_for(self, now: datetime) -> float:
        """Seconds since the last beat."""
        return (now - datetime.fromisoformat(self.heard)).total_seconds()

    def is_lost(self, now: datetime) -> bool:
        """Whether a job that said it runs has not been heard of for too long: it was killed, or its node is gone."""
        return self.state == "running" and self.silent_for(now) > LOST_AFTER * self.every


def place_of(folder: Folder) -> tuple[Folder, str]:
    """Where the pulse of work on `folder` lies: a folder, and a name in it."""
    return folder.parent / PULSES, f"{folder.name}.json"


def read_pulse(folder: Folder) -> Pulse | None:
    """The last that was heard of work on `folder`; None if there is nothing, or nothing that can be read."""
    where, name = place_of(folder)
    if not where.exists(name):
        return None
    try:
        return Pulse(**where.read_json(name))
    except (ValueError, TypeError) as error:
        logger.warning("%s/%s is no sign of life: %s", where, name, error)
        return None


@contextmanager
def beating(folder: Folder, job: str, every: float = EVERY) -> Iterator[None]:
    """Say every few seconds that `job` works on `folder`, for the length of the block; at its end, how it ended.

    Nothing stays of a job that ends well: the folder's seal says all. Storage that cannot be written breaks no work:
    the beat is missed, and the next one is tried. In the block again, it does nothing.
    """
    if folder.uri in _beating:
        yield
        return
    now = _now()
    first = Pulse(job=job, node=socket.gethostname(), process=os.getpid(), began=now, heard=now, every=every)
    heart = _Heart(folder, first)
    heart.start()
    _beating.add(folder.uri)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        heart.end("stopped", "it was interrupted")
        raise
    except BaseException as error:
        heart.end("failed", _sentence(error))
        raise
    else:
        heart.end()
    finally:
        _beating.discard(folder.uri)


class _Heart(threading.Thread):
    """All that it does to storage is done in its own thread, so that storage that is away holds up no job's end."""

    def __init__(self, folder: Folder, first: Pulse) -> None:
        super().__init__(name="pulse", daemon=True)
        self._folder, (self._where, self._name) = folder, place_of(folder)
        self._last, self._over = first, threading.Event()
        self._ended: dict[str, str] = {}

    def run(self) -> None:
        wait = min(_FIRST_AFTER, self._last.every)
        while not self._over.wait(wait):
            self._beat()
            wait = self._last.every
        self._last_beat()

    def end(self, state: Literal["running", "failed", "stopped"] = "running", why: str = "") -> None:
        """Beat for the last time. Nothing is left of what ended well, or ended before the folder was begun."""
        self._ended = {"state": state, "why": why}
        self._over.set()
        self.join(_LAST_WITHIN)

    def _last_beat(self) -> None:
        why = self._ended["why"]
        try:
            if why and self._folder.exists(STARTED):
                self._beat(**self._ended)
            else:
                self._where.remove(self._name)
        except (OSError, ValueError) as error:  # of Arrow, too
            logger.warning("The pulse %s/%s could not be ended: %s", self._where, self._name, error)

    def _beat(self, **changes: str) -> None:
        count = progress.under_way()
        told = {"doing": count.what, "done": count.done, "total": count.total} if count is not None else {}
        self._last = dataclasses.replace(self._last, heard=_now(), **told, **changes)  # type: ignore[arg-type]
        try:
            self._where.write_json(self._name, dataclasses.asdict(self._last))
        except (OSError, ValueError) as error:
            logger.debug("%s/%s: a beat was missed: %s", self._where, self._name, error)


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")


def _sentence(error: BaseException) -> str:
    """The error without a stack: what Ray wraps is looked for inside."""
    cause = getattr(error, "cause", None)
    error = cause if isinstance(cause, BaseException) else error
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[-1].strip() if lines else ''}"
    return text if len(text) <= _LONGEST_SENTENCE else f"{text[: _LONGEST_SENTENCE - 3]}..."
