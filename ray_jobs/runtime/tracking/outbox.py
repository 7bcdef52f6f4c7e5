"""News that MLflow could not be told: kept in the workspace, one JSON file each, until it can be.

A tracking server that is down, restarted or out of reach must cost no work and no figure. What a run has to say is
tried at once; what cannot be said is kept, in order, where every node can write and no node's loss reaches it. It is
told at the end of the run, which waits a while for the server, and else at the start of the next run in the workspace.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from retrieval.artifacts.folder import Folder

logger = logging.getLogger(__name__)

OUTBOX = "mlflow-outbox"
REFUSED = "refused"
"""Below it: news that the server took and would not have."""
_AWAY = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"}


@dataclass(frozen=True, slots=True)
class Outbox:
    """The news that waits in one workspace."""

    folder: Folder

    @classmethod
    def of(cls, workspace: str | Folder) -> Outbox:
        return cls(Folder.of(workspace) / OUTBOX)

    def keep(self, run_id: str, what: str, args: dict[str, Any]) -> None:
        """Raises: OSError if the workspace cannot be written either."""
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json"  # sorted by age
        self.folder.write_json(name, {"run": run_id, "what": what, "args": args})

    def waiting(self) -> list[str]:
        """Names of what waits, the oldest first."""
        return [name for name in self.folder.list() if "/" not in name]

    def deliver(self, tell: Callable[[str, str, dict[str, Any]], None]) -> int:
        """Tell all that waits, the oldest first, and stop where the store is away.

        What the store refuses is kept apart, in a folder `refused`, and a warning says so. What belongs to a run that
        this store does not know stays.

        Args: tell: called with a run's id, the kind of the news and its arguments.

        Returns: how many wait for the store to come back.
        """
        names = self.waiting()
        strangers = 0
        for number, name in enumerate(names):
            try:
                news = json.loads(self.folder.read_bytes(name))
            except FileNotFoundError:  # another run told it meanwhile
                continue
            try:
                tell(news["run"], news["what"], news["args"])
            except Exception as error:  # noqa: BLE001  looked at, kept apart, said
                if is_away(error):
                    return len(names) - number
                if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST" and news["run"] in str(error):
                    strangers += 1
                    continue
                self._refused(name, news, error)
            self.folder.remove(name)
        if strangers:
            logger.warning("%d notes in %s are of runs that this MLflow does not know", strangers, self.folder)
        return 0

    def _refused(self, name: str, news: dict[str, Any], error: Exception) -> None:
        logger.warning(
            "MLflow refuses %s of run %s (%s): kept in %s/%s", news["what"], news["run"], error, self.folder, REFUSED
        )
        (self.folder / REFUSED).write_json(name, news | {"why": f"{type(error).__name__}: {error}"})


def is_away(error: BaseException | None) -> bool:
    """Whether an error means that the store cannot be reached or asked just now; else it said no."""
    while error is not None:
        code = getattr(error, "error_code", None)
        if code is not None:
            return code in _AWAY
        if isinstance(error, FileNotFoundError | FileExistsError | IsADirectoryError | NotADirectoryError):
            return False  # of our own files, not of the store
        if isinstance(error, OSError):
            return True
        error = error.__cause__
    return False
