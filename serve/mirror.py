"""A replica's figures at Ray's own Prometheus endpoint as well.

`/metrics` of the service answers for the one replica that a balancer picked. Ray's endpoint of each node has those of
all replicas there, beside Ray's own, at one address that does not move. They have the same names with ray_ before.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from serve.metrics import Metrics

logger = logging.getLogger(__name__)

_EVERY = 5.0  # seconds; Ray itself reports each 10


class Mirror(threading.Thread):
    """Copies a replica's figures every few seconds, away from its requests. To be started in a process of Ray."""

    def __init__(self, metrics: Metrics, every: float = _EVERY) -> None:
        super().__init__(name="mirror", daemon=True)
        self._metrics, self._every = metrics, every
        self._over = threading.Event()
        self._figures: dict[str, Any] = {}
        self._shown: set[Any] = set()

    def run(self) -> None:
        while True:
            try:
                self.copy()
            except Exception:  # figures must not end a replica, and the next time may be better
                logger.exception("The figures of this replica did not reach Ray's endpoint")
            if self._over.wait(self._every):
                return

    def close(self) -> None:
        self._over.set()

    def copy(self) -> None:
        """Once. What is no longer among the figures is 0 from then on: Ray forgets none."""
        from ray.util.metrics import Gauge

        now = self._metrics.values()
        for name, labels in self._shown - set(now):
            self._figures[name].set(0, tags=dict(labels))
        for (name, labels), value in now.items():
            if name not in self._figures:  # counters too: they are counted already
                keys = tuple(key for key, _ in labels)
                self._figures[name] = Gauge(name, description="See /metrics of the service.", tag_keys=keys)
            self._figures[name].set(value, tags=dict(labels))
        self._shown = set(now)
