"""Which version answers now."""

from __future__ import annotations

from serve.engine.version import Version


class Versions:
    """Holds the version that answers. A query takes `current` once and uses nothing else."""

    def __init__(self, first: Version) -> None:
        self._current = first

    @property
    def current(self) -> Version:
        return self._current

    def close(self) -> None:
        self._current.close()
