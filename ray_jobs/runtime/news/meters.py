"""Figures of jobs at Ray's own Prometheus endpoint: how far each step is, what parts take, what is left out.

There they are called ray_retrieval_job_..., counters with _total behind. Without Ray nothing is counted. What each
says is in docs/reference/metrics.md; cluster/grafana.json draws them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

_SECONDS = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000]

# Name -> (what Ray calls its kind, what it says, its labels).
FIGURES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "retrieval_job_items": ("Counter", "Items of finished parts, mostly photos.", ("step",)),
    "retrieval_job_parts": ("Counter", "Finished parts.", ("step",)),
    "retrieval_job_rejected": ("Counter", "Photos left out.", ("step", "reason")),
    "retrieval_job_busy_seconds": ("Counter", "Seconds that workers spent on finished parts.", ("step", "host")),
    "retrieval_job_part_seconds": ("Histogram", "Seconds that one part took.", ("step",)),
    "retrieval_job_steps": ("Counter", "Steps that ended: done, or failed.", ("step", "how")),
    "retrieval_job_done": ("Gauge", "Items of the step under way that are done.", ("step",)),
    "retrieval_job_all": ("Gauge", "Items of the step under way; 0 where nobody knows.", ("step",)),
}
_made: dict[str, Any] = {}


def count(name: str, value: float, **labels: str) -> None:
    """Add to a counter, or put a value into a histogram or a gauge. Nothing happens where Ray does not run."""
    if "ray" not in sys.modules:
        return
    import ray

    if not ray.is_initialized():
        return
    figure = _made.get(name)
    if figure is None:
        from ray.util import metrics

        kind, says, keys = FIGURES[name]
        more = {"boundaries": _SECONDS} if kind == "Histogram" else {}
        figure = _made[name] = getattr(metrics, kind)(name, description=says, tag_keys=keys, **more)
    how = {"Counter": "inc", "Histogram": "observe", "Gauge": "set"}[FIGURES[name][0]]
    if how != "inc" or value > 0:  # Ray refuses to add nothing
        getattr(figure, how)(value, tags=labels)


def is_at(step: str, done: int, total: int) -> None:
    """How far a step is. Args: total: 0 where nobody knows."""
    count("retrieval_job_done", done, step=step)
    count("retrieval_job_all", total, step=step)


def left_out(step: str, reasons: Mapping[str, int]) -> None:
    """Photos that a part rejected, by reason."""
    for reason, num in reasons.items():
        count("retrieval_job_rejected", num, step=step, reason=reason)
