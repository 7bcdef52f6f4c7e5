"""A cluster that is none: what a job gives to Ray is done here and at once, and written down."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class Cluster:
    """Stands for `ray` and for runtime.session. `parts` holds the calls of run_parts, `tasks` what ran on_cluster,
    `needs` what was asked for it."""

    def __init__(self, resources: Mapping[str, float] | None = None) -> None:
        self.resources = dict(resources or {"CPU": 2.0})
        self.parts: list[dict[str, Any]] = []
        self.tasks: list[str] = []
        self.needs: dict[str, Any] = {}
        self.sessions = 0

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": self.resources}]

    def is_initialized(self) -> bool:
        return False

    def remote(self, work: Callable[..., Any]) -> Any:
        return SimpleNamespace(remote=work)

    def get(self, done: Any) -> Any:
        return done

    @contextlib.contextmanager
    def session(self, limits: Any = None, **places: Any) -> Iterator[None]:
        self.sessions += 1
        yield

    def on_cluster(self, work: Callable[..., Any], *args: Any, says: str = "", needs: Any = None, **kwargs: Any) -> Any:
        name = getattr(work, "__name__", "?")
        self.tasks.append(name)
        self.needs[name] = needs
        return work(*args, **kwargs)

    def wait_for(self, needs: Any, *of: Any) -> Any:
        return needs

    def all_have_bfloat16(self, *, gpu: bool) -> bool:
        return True

    def started(self, work: Callable[..., Any], *args: Any, needs: Any = None) -> Any:
        self.needs[getattr(work, "__name__", "?")] = needs
        return work(*args)

    def run_parts(
        self,
        name: str,
        parts: Sequence[int],
        work: Any,
        *,
        fixed: Mapping[str, Any] | None = None,
        takes: str = "part",
        **told: Any,
    ) -> Iterator[Any]:
        self.parts.append({"name": name, "parts": list(parts), "fixed": dict(fixed or {}), "takes": takes, **told})
        made = work(**(fixed or {})) if isinstance(work, type) else None
        for part in parts:
            row = made(**{takes: part}) if made is not None else work(**{takes: part}, **(fixed or {}))
            yield dataclasses.asdict(row) if dataclasses.is_dataclass(row) else row  # type: ignore[arg-type]


def install(
    monkeypatch: pytest.MonkeyPatch, *jobs: ModuleType, resources: Mapping[str, float] | None = None
) -> Cluster:
    """Put a cluster that is none in place of Ray's, for these jobs' modules."""
    cluster = Cluster(resources)
    monkeypatch.setitem(sys.modules, "ray", cluster)  # type: ignore[arg-type]
    for job in jobs:
        for name in ("session", "on_cluster", "started", "run_parts", "wait_for", "all_have_bfloat16"):
            if hasattr(job, name):
                monkeypatch.setattr(job, name, getattr(cluster, name))
    return cluster
