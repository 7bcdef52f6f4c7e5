"""Which limits hold within a session; the rest of `session` needs a cluster: tests/cluster."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from ray_jobs.runtime import session
from ray_jobs.runtime.parallel import parts
from ray_jobs.runtime.parallel.limits import Limits, TimeLimits


def test_the_limits_of_the_outermost_session_hold_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))  # type: ignore[arg-type]
    pipeline, step = Limits(max_rejected=0.5), Limits(max_rejected=0.1)
    with session.session(pipeline), session.session(step):
        assert parts.limits() == pipeline
    with session.session(step):
        assert parts.limits() == step
    assert parts.limits() == Limits()
    with session.session(TimeLimits(wait_seconds=7)):  # of a job that reads no photos
        assert parts.limits() == Limits(wait_seconds=7)
