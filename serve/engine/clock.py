"""Where the time of one query goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from serve.schemas import Seconds


@dataclass(slots=True)
class Clock:
    """Stages by name, each as long as all the times it was entered."""

    began: float = field(default_factory=time.perf_counter)
    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.spent[name] = self.spent.get(name, 0.0) + time.perf_counter() - started

    def move(self, seconds: float, to: str, was: str) -> None:
        """So much of one stage belonged to another."""
        self.spent[was] -= seconds
        self.spent[to] = self.spent.get(to, 0.0) + seconds

    def seconds(self) -> Seconds:
        spent = {name: self.spent.get(name, 0.0) for name in ("upload", "prepare", "embed", "search", "rerank")}
        return Seconds(total=time.perf_counter() - self.began, **spent)
