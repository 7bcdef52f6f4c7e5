"""A training by Ray Train, to its end. It replaces workers that die; here is what it does not survive by itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ray_jobs.runtime.parallel.limits import TRIES
from ray_jobs.runtime.parallel.parts import ADVICE, deaths
from retrieval.artifacts.folder import Folder

logger = logging.getLogger(__name__)

NOTES = "checkpoint_manager_snapshot.json"
"""What Ray Train knows of a run's checkpoints, in the run's folder. It is written in place."""


def to_its_end(fit: Callable[[], Any], run: Folder) -> None:
    """Let Ray Train fit. If the process that leads the workers dies, do so again, three times in all: it goes on from
    the last checkpoint.

    Args: run: the folder that Ray keeps the run in. Notes that somebody left half written there are taken away, since
        no run would start with them: it begins with its first epoch then.

    Raises: ValueError if it dies each time; what `fit` raises.
    """
    ends: list[str] = []
    while True:
        _take_half_notes_away(run)
        try:
            fit()
            return
        except deaths() as death:
            ends.append(type(death).__name__)
            if len(ends) >= TRIES:
                raise ValueError(
                    f"train: the process that leads the workers ended {TRIES} times ({', '.join(ends)}). {ADVICE}"
                ) from death
            logger.warning("train: the process that leads the workers ended (%s); once more", ends[-1])


def _take_half_notes_away(run: Folder) -> None:
    if run.exists(NOTES):
        try:
            run.read_json(NOTES)
        except ValueError:
            logger.warning("%s/%s was left half written; training begins with its first epoch", run, NOTES)
            run.remove(NOTES)
