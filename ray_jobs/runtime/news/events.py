"""What happens, for machines: a JSON object a line, beside the log for people.

Each of our log lines is one, and what is too much for people as well: the end of every part and step, with its step,
part, node and seconds. They lie in logs/retrieval-driver.jsonl of Ray's session folder, on the node of the driver::

    {"time": "2026-11-29T21:44:26.620+00:00", "level": "INFO", "event": "part", "job": "ray_jobs.ingest",
     "step": "ingest", "part": 7, "node": "ip-10-0-3-7", "seconds": 4.2, "items": 60}
"""

from __future__ import annotations

import json
import logging
import socket
from datetime import UTC, datetime
from typing import Any

FILE = "retrieval-driver.jsonl"

logger = logging.getLogger(__name__)
logger.propagate = False  # not for the screen
logger.setLevel(logging.INFO)

_job = ""


def of_job(name: str) -> None:
    """All that this process says from now on is of this job."""
    global _job
    _job = name


def happened(event: str, **facts: Any) -> None:
    """Something that a program may look for. Args: facts: plain values; `node` is this one unless it is given."""
    logger.info(event, extra={"facts": {"event": event, **facts}})


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told: dict[str, Any] = {"time": at, "level": record.levelname, "job": _job, "node": socket.gethostname()}
        facts = getattr(record, "facts", None)
        told |= {"logger": record.name, "message": record.getMessage()} if facts is None else facts
        if record.exc_info:
            told["stack"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)
