"""Stages add up, and one that fails counts as well."""

from __future__ import annotations

import pytest

from serve.engine.clock import Clock


def test_a_stage_counts_each_time_and_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 1.0, 3.0, 10.0, 14.0, 20.0])
    monkeypatch.setattr("serve.engine.clock.time.perf_counter", lambda: next(ticks))
    clock = Clock(began=0.0)
    next(ticks)
    with clock.stage("search"):
        pass
    with pytest.raises(KeyError), clock.stage("search"):
        raise KeyError
    assert clock.spent == {"search": 6.0}
    clock.move(2.0, to="embed", was="search")
    clock.move(1.0, to="embed", was="search")
    assert clock.spent == {"search": 3.0, "embed": 3.0}
    told = clock.seconds()
    assert (told.total, told.search, told.embed, told.prepare) == (20.0, 3.0, 3.0, 0.0)
