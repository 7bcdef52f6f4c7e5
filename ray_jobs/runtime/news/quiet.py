"""What a run prints: our lines, and the errors of others. The one place that sets handlers.

Nothing is lost: what is kept from the screen is in Ray's session folder, logs/retrieval-driver.log (this process; for
machines, .jsonl) and logs/worker-*, logs/train (Ray's own). A warning of Ray's is shown unless it is
named here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray_jobs.runtime.news import events
from ray_jobs.runtime.news.screen import OURS, SCREEN, ScreenHandler

LOG_FILE = "retrieval-driver.log"
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# Ray's notices that tell whoever runs a job nothing that can be acted on.
_NOTICES = re.compile(r"Token authentication is enabled|^Progress bars disabled|^Progress bars for operators disabled")
_CHATTY = ("ray", "ray.data", "ray.train", "mlflow", "alembic")
_WITH_FILES = ("ray.data", "ray.train")  # Ray keeps theirs itself
_files: list[logging.Handler] = []


def set_up_logging() -> None:
    """Our lines go to the screen as they are, of others only warnings and errors. Twice is as good as once."""
    root = logging.getLogger()
    if not any(isinstance(handler, ScreenHandler) for handler in root.handlers):
        handler = ScreenHandler(SCREEN)
        handler.addFilter(_is_shown)
        root.addHandler(handler)
    if root.level > logging.INFO or root.level == logging.NOTSET:
        root.setLevel(logging.INFO)


def hush(*names: str) -> None:
    """Take the screen from the handlers that these loggers brought along: it shows their warnings and errors only.

    To be called once they are there: a library sets its own when it is imported.
    """
    for name in names or _CHATTY:
        logger = logging.getLogger(name)
        for handler in logger.handlers:
            known = type(handler).__module__.partition(".")[0] in ("logging", "ray")  # not a caller's own
            if known and isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.addFilter(_left_to_the_screen)
        if _files and not logger.propagate and name not in _WITH_FILES:
            logger.addHandler(_files[-1])


def _is_shown(record: logging.LogRecord) -> bool:
    if record.name.partition(".")[0] in OURS:
        return True
    return record.levelno >= logging.WARNING and not _NOTICES.search(record.getMessage())


def _left_to_the_screen(record: logging.LogRecord) -> bool:
    """In place of a handler of others, which would write into the bar."""
    if _is_shown(record):
        ScreenHandler(SCREEN).handle(record)
    return False


@contextmanager
def kept_in(logs: Path | None) -> Iterator[None]:
    """Write everything that this process logs to a file in `logs` too, for the length of the block."""
    if logs is None or not logs.is_dir():
        yield
        return
    handler, lines = logging.FileHandler(logs / LOG_FILE), logging.FileHandler(logs / events.FILE)
    handler.setFormatter(logging.Formatter(_FORMAT))
    lines.setFormatter(events.JsonLines())
    _files.append(handler)
    for each, to in ((handler, logging.getLogger()), (lines, logging.getLogger()), (lines, events.logger)):
        to.addHandler(each)
    hush()
    try:
        yield
    finally:
        _files.remove(handler)
        for name in ("", events.logger.name, *_CHATTY):
            logging.getLogger(name).removeHandler(handler)
            logging.getLogger(name).removeHandler(lines)
        handler.close()
        lines.close()
